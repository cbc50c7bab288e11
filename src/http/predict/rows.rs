//! Inputs in rows (a value for each sample, or an object with one for each input) and in columns (all samples of an input
//! together), as TensorFlow Serving and MLflow read them.
//!
//! Either way elements go straight into one flat vector for each input, and no tree of JSON values is made.
//!
//! Source: <https://github.com/tensorflow/serving>, `tensorflow_serving/g3doc/api_rest.md`, "Predict API".

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::data::{Flattener, Nested};
use super::{Data, Tensors};

/// Most inputs or columns that a request may name. Each takes a few hundred bytes, however few were sent for it.
pub const MOST_COLUMNS: usize = 1 << 16;

/// Inputs in rows: an array of values, arrays of values, or objects of these.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows(pub Tensors);

/// Inputs in columns: an object of values or arrays of them, or one of these alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns(pub Tensors);

/// Rows that have been read so far.
#[derive(Debug, Default)]
struct RowsBuilder {
    count: usize,
    /// Of rows that are no objects.
    unnamed: Option<Flattener>,
    /// In the order of the first row.
    columns: Vec<Column>,
    /// Where in `columns` a name is.
    places: HashMap<String, usize>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// Rows that have a value here.
    rows: usize,
    values: Flattener,
}

impl RowsBuilder {
    /// The values of rows without names.
    fn unnamed<E: serde::de::Error>(&mut self) -> Result<&mut Flattener, E> {
        if !self.columns.is_empty() {
            return Err(E::custom(MIXED));
        }
        Ok(self.unnamed.get_or_insert_with(|| Flattener::keeping(usize::MAX)))
    }

    /// The values of `name`, which is member `position` of the row at hand.
    fn column<E: serde::de::Error>(&mut self, position: usize, name: String) -> Result<&mut Flattener, E> {
        // Rows mostly have their members in the same order.
        let is_there = self.columns.get(position).is_some_and(|column| column.name == name);
        let place = if is_there { Some(position) } else { self.places.get(&name).copied() };
        let place = match place {
            Some(place) => place,
            None if self.count > 0 => {
                return Err(E::custom(format_args!("row {} has `{name}`, which the rows before it lack", self.count)));
            }
            None if self.columns.len() == MOST_COLUMNS => {
                return Err(E::custom(format_args!("there are more than {MOST_COLUMNS} columns")));
            }
            None => {
                self.places.insert(name.clone(), self.columns.len());
                self.columns.push(Column { name, rows: 0, values: Flattener::keeping(usize::MAX) });
                self.columns.len() - 1
            }
        };
        let column = &mut self.columns[place];
        if column.rows > self.count {
            return Err(E::custom(format_args!("row {} has `{}` twice", self.count, column.name)));
        }
        column.rows += 1;
        Ok(&mut column.values)
    }

    /// Ends a row that had `members`; 0 for one that is no object.
    fn end_row<E: serde::de::Error>(&mut self, members: usize) -> Result<(), E> {
        if members != self.columns.len() {
            let lacking = self.columns.iter().find(|column| column.rows == self.count);
            let name = lacking.map_or("", |column| column.name.as_str());
            return Err(E::custom(format_args!("row {} lacks `{name}`", self.count)));
        }
        self.count += 1;
        Ok(())
    }

    fn finish<E: serde::de::Error>(self) -> Result<Tensors, E> {
        let Self { count, unnamed, columns, .. } = self;
        let close = |mut values: Flattener| -> Result<Data, E> {
            values.close(0, count)?;
            Ok(values.finish())
        };
        if columns.is_empty() {
            return close(unnamed.unwrap_or_default()).map(Tensors::Unnamed);
        }
        let columns = columns.into_iter().map(|column| Ok((column.name, close(column.values)?)));
        columns.collect::<Result<_, _>>().map(Tensors::Named)
    }
}

const MIXED: &str = "some rows are objects, others are not";

/// What is no object is read by a visitor of nested arrays, to which `unnamed` hands it.
macro_rules! visit_unnamed {
    () => {
        fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
            self.unnamed(|nested| nested.visit_bool(value))
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
            self.unnamed(|nested| nested.visit_i64(value))
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
            self.unnamed(|nested| nested.visit_u64(value))
        }

        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
            self.unnamed(|nested| nested.visit_f64(value))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
            self.unnamed(|nested| nested.visit_seq(items))
        }
    };
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor).map(Self)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tensors, A::Error> {
        let mut rows = RowsBuilder::default();
        while items.next_element_seed(Row(&mut rows))?.is_some() {}
        rows.finish()
    }
}

/// Reads one row, behind those that were read.
struct Row<'a>(&'a mut RowsBuilder);

impl Row<'_> {
    /// A row that is no object, read by `read`.
    fn unnamed<E: serde::de::Error, T>(self, read: impl FnOnce(Nested<'_>) -> Result<T, E>) -> Result<(), E> {
        read(Nested { flattener: self.0.unnamed()?, depth: 1 })?;
        self.0.end_row(0)
    }
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, booleans, arrays of them or objects of these")
    }

    visit_unnamed!();

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if self.0.unnamed.is_some() {
            return Err(A::Error::custom(MIXED));
        }
        let mut count = 0;
        while let Some(name) = members.next_key::<String>()? {
            let flattener = self.0.column(count, name)?;
            members.next_value_seed(Nested { flattener, depth: 1 })?;
            count += 1;
        }
        if count == 0 {
            return Err(A::Error::custom(format_args!("row {} is empty", self.0.count)));
        }
        self.0.end_row(count)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnsVisitor).map(Self)
    }
}

struct ColumnsVisitor;

impl ColumnsVisitor {
    /// What `read` reads, whole.
    fn unnamed<E, T>(self, read: impl FnOnce(Nested<'_>) -> Result<T, E>) -> Result<Tensors, E> {
        let mut flattener = Flattener::keeping(usize::MAX);
        read(Nested { flattener: &mut flattener, depth: 0 })?;
        Ok(Tensors::Unnamed(flattener.finish()))
    }
}

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, booleans, arrays of them or an object of these")
    }

    visit_unnamed!();

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tensors, A::Error> {
        let mut columns = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if columns.len() == MOST_COLUMNS {
                return Err(A::Error::custom(format_args!("there are more than {MOST_COLUMNS} inputs")));
            }
            let mut flattener = Flattener::keeping(usize::MAX);
            members.next_value_seed(Nested { flattener: &mut flattener, depth: 0 })?;
            columns.push((name, flattener.finish()));
        }
        Ok(Tensors::Named(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str) -> Result<Tensors, String> {
        serde_json::from_str(json).map(|Rows(tensors)| tensors).map_err(|error| error.to_string())
    }

    fn columns(json: &str) -> Result<Tensors, String> {
        serde_json::from_str(json).map(|Columns(tensors)| tensors).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_of_values_are_columns_of_all_of_them() {
        for json in ["[1, 2.5, true]", "[[1, 2], [3, 4]]", "[[[1], [2]], [[3], [4]]]", "[]", "[[], []]"] {
            assert_eq!(rows(json).unwrap(), columns(json).unwrap(), "{json}");
        }
    }

    #[test]
    fn rows_of_objects_are_an_object_of_columns() {
        let found = rows(r#"[{"a": 1, "b": [1, 2]}, {"b": [3, 4], "a": 2}]"#).unwrap();
        assert_eq!(found, columns(r#"{"a": [1, 2], "b": [[1, 2], [3, 4]]}"#).unwrap());
    }

    #[test]
    fn a_value_alone_has_no_axis() {
        let Tensors::Unnamed(data) = columns("7").unwrap() else { panic!("it has no name") };
        assert_eq!((data.count, data.extents), (1, vec![]));
    }

    #[test]
    fn every_fault_is_named() {
        for (json, fault) in [
            ("7", "an array of rows"),
            (r#"{"a": [1]}"#, "an array of rows"),
            (r#"[1, {"a": 1}]"#, MIXED),
            (r#"[{"a": 1}, [1]]"#, MIXED),
            ("[1, [2]]", "ragged"),
            ("[[1, 2], [3]]", "ragged: arrays of 2 and 1 items on axis 1"),
            (r#"[{"a": [1]}, {"a": [1, 2]}]"#, "ragged"),
            (r#"[{"a": 1}, {"a": [1]}]"#, "ragged"),
            (r#"[{"a": 1, "a": 2}]"#, "row 0 has `a` twice"),
            (r#"[{"a": 1, "b": 2}, {"b": 2}]"#, "row 1 lacks `a`"),
            (r#"[{"a": 1}, {"b": 2}]"#, "row 1 has `b`, which the rows before it lack"),
            (r#"[{"a": 1}, {}]"#, "row 1 is empty"),
            (r#"["one"]"#, "string"),
            (r#"[{"b64": "b25l"}]"#, "string"),
            (r#"[[{"b64": "b25l"}]]"#, "invalid type: map, expected numbers, booleans or arrays of them"),
            ("[null]", "null"),
        ] {
            let message = rows(json).unwrap_err();
            assert!(message.contains(fault), "{json}: {message}");
        }
        for (json, fault) in
            [("null", "null"), (r#""one""#, "string"), (r#"{"a": {"b": 1}}"#, "map"), ("[1, [2]]", "ragged")]
        {
            let message = columns(json).unwrap_err();
            assert!(message.contains(fault), "{json}: {message}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let members = |count: usize| (0..count).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(",");
        for (count, is_read) in [(MOST_COLUMNS, true), (MOST_COLUMNS + 1, false)] {
            let object = format!("{{{}}}", members(count));
            assert_eq!(columns(&object).is_ok(), is_read, "{count}");
            assert_eq!(rows(&format!("[{object}]")).is_ok(), is_read, "{count}");
        }
    }
}
