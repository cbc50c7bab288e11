//! A stage of a recipe as it is written: left to the level above, switched off, or set.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One stage at one level of a recipe. In JSON: no field, `null` or `"none"`, or an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Stage<T> {
    /// Nothing is said: the level above decides.
    #[default]
    Inherit,
    /// The stage is switched off, whatever the level above says.
    Off,
    /// The fields that this level sets.
    On(T),
}

/// Partial settings that can be laid over others, field by field.
pub(super) trait Overlay: Clone {
    /// Takes every field that `over` sets.
    fn overlay(&mut self, over: &Self);
}

impl<T> Stage<T> {
    /// True when nothing is said.
    pub fn is_inherited(&self) -> bool {
        matches!(self, Self::Inherit)
    }

    /// The fields, when the stage is set.
    pub fn fields(&self) -> Option<&T> {
        match self {
            Self::On(fields) => Some(fields),
            Self::Inherit | Self::Off => None,
        }
    }
}

impl<T: Overlay> Overlay for Stage<T> {
    fn overlay(&mut self, over: &Self) {
        match (over, self) {
            (Self::Inherit, _) => {}
            (Self::On(over), Self::On(fields)) => fields.overlay(over),
            (over, this) => *this = over.clone(),
        }
    }
}

impl<T: Serialize> Serialize for Stage<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inherit => serializer.serialize_none(),
            Self::Off => serializer.serialize_str("none"),
            Self::On(fields) => fields.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Stage<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StageVisitor(PhantomData))
    }
}

struct StageVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for StageVisitor<T> {
    type Value = Stage<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, null or \"none\"")
    }

    fn visit_unit<E: Error>(self) -> Result<Stage<T>, E> {
        Ok(Stage::Off)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Stage<T>, E> {
        match text {
            "none" => Ok(Stage::Off),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Stage<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Stage::On)
    }
}

#[cfg(feature = "service")]
pub(super) mod schema {
    //! Written by hand: a derived schema would demand an object beside the `null` and the `"none"` that it allows.

    use utoipa::ToSchema;
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Ref, SchemaType, Type};
    use utoipa::openapi::{RefOr, Schema};

    use super::super::{PruneFields, QuantizeFields};

    pub(crate) fn prune() -> RefOr<Schema> {
        stage::<PruneFields>("Which weights become zero.")
    }

    pub(crate) fn quantize() -> RefOr<Schema> {
        stage::<QuantizeFields>("Which few values the surviving weights take.")
    }

    fn stage<T: ToSchema>(description: &str) -> RefOr<Schema> {
        let none = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["none"]));
        let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
        let stage = OneOfBuilder::new().item(Ref::from_schema_name(T::name())).item(none).item(null);
        stage.description(Some(description)).into()
    }
}
