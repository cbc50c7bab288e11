//! Data frames: rows of cells under named columns, in the two forms in which pandas writes them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use crate::http::Error;
use crate::http::extract::Object;
use crate::http::predict::{Data, Flattener, MOST_COLUMNS, Nested, Rows, Tensors};
use crate::model::Port;

/// A data frame.
#[derive(Debug, PartialEq)]
pub struct Frame {
    /// Of as many columns as there are; `None` where none are named.
    names: Option<Vec<String>>,
    /// Of each column the cells of all rows.
    columns: Vec<Data>,
}

/// A data frame as an array of objects, one a row.
#[derive(Debug, PartialEq)]
pub struct Records(pub Frame);

/// A data frame as an object of its parts.
#[derive(Debug, PartialEq)]
pub struct Split(pub Frame);

impl Frame {
    /// What a model that has `inputs` takes of it: a model of one input all cells, or a column alone that has the rank of the
    /// input; others the columns with the names of their inputs.
    ///
    /// # Errors
    /// [`Error::InvalidJson`] for cells of different shapes, or columns without names.
    pub fn into_tensors(self, inputs: &[Port]) -> Result<Tensors, Error> {
        let Self { names, columns } = self;
        if let [input] = inputs {
            return match <[Data; 1]>::try_from(columns) {
                Ok([column]) if column.extents.len() == input.dims.len() => Ok(Tensors::Unnamed(column)),
                Ok(column) => side_by_side(&column).map(Tensors::Unnamed),
                Err(columns) => side_by_side(&columns).map(Tensors::Unnamed),
            };
        }
        let Some(names) = names else {
            return Err(Error::InvalidJson("`columns` is missing, which names the inputs of the model".to_owned()));
        };
        Ok(Tensors::Named(names.into_iter().zip(columns).collect()))
    }
}

/// All cells of `columns`, row by row.
fn side_by_side(columns: &[Data]) -> Result<Data, Error> {
    let Some(first) = columns.first() else { return Ok(Data { extents: vec![0], ..Data::default() }) };
    if let Some(other) = columns.iter().position(|column| column.extents != first.extents) {
        return Err(Error::InvalidJson(format!(
            "the cells of column {other} have another shape than those of column 0"
        )));
    }
    let [rows, cell @ ..] = &first.extents[..] else { return Ok(first.clone()) };
    let cell_count = cell.iter().product::<usize>();
    let count = columns.iter().map(|column| column.count).sum();
    let mut elements = Vec::with_capacity(count);
    for row in 0..*rows {
        columns
            .iter()
            .for_each(|column| elements.extend_from_slice(&column.elements[row * cell_count..][..cell_count]));
    }
    Ok(Data { elements, count, extents: [&[*rows, columns.len()], cell].concat() })
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let frame = match Rows::deserialize(deserializer)?.0 {
            Tensors::Named(columns) => {
                let (names, columns) = columns.into_iter().unzip();
                Frame { names: Some(names), columns }
            }
            Tensors::Unnamed(data) if data.count == 0 => Frame { names: None, columns: Vec::new() },
            Tensors::Unnamed(_) => return Err(D::Error::custom("records are objects, of the cells of a row each")),
        };
        Ok(Self(frame))
    }
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As it is written.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            columns: Option<Names>,
            #[serde(rename = "index")]
            _index: Option<IgnoredAny>,
            data: Cells,
        }
        let Object(Parts { columns: names, data: Cells(columns), .. }) = Object::deserialize(deserializer)?;
        let names = names.map(|Names(names)| names);
        if let Some(names) = &names
            && names.len() != columns.len()
        {
            let (given, found) = (names.len(), columns.len());
            return Err(D::Error::custom(format_args!(
                "there are {given} names of columns, and {found} cells in a row"
            )));
        }
        Ok(Self(Frame { names, columns }))
    }
}

/// Names of columns.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(NamesVisitor).map(Self)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut names = Vec::new();
        while let Some(Label(name)) = items.next_element()? {
            check_count(names.len())?;
            names.push(name);
        }
        Ok(names)
    }
}

/// The name of a column; pandas numbers those that nobody has named.
struct Label(String);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelVisitor).map(Self)
    }
}

struct LabelVisitor;

impl Visitor<'_> for LabelVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a number")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<String, E> {
        Ok(name.to_owned())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// Refuses a column behind `count` others, where these are all that may be.
fn check_count<E: serde::de::Error>(count: usize) -> Result<(), E> {
    match count {
        MOST_COLUMNS => Err(E::custom(format_args!("there are more than {MOST_COLUMNS} columns"))),
        _ => Ok(()),
    }
}

/// Cells by their columns, written by their rows.
struct Cells(Vec<Data>);

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CellsVisitor).map(Self)
    }
}

struct CellsVisitor;

impl<'de> Visitor<'de> for CellsVisitor {
    type Value = Vec<Data>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Vec<Data>, A::Error> {
        let (mut columns, mut count) = (Vec::new(), 0);
        while rows.next_element_seed(Row { columns: &mut columns, index: count })?.is_some() {
            count += 1;
        }
        let close = |mut column: Flattener| {
            column.close(0, count)?;
            Ok(column.finish())
        };
        columns.into_iter().map(close).collect()
    }
}

/// Reads the row `index` of all.
struct Row<'a> {
    columns: &'a mut Vec<Flattener>,
    index: usize,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row, which is an array of cells")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        let Self { columns, index } = self;
        let mut count = 0;
        loop {
            let mut new = Flattener::keeping(usize::MAX);
            let flattener = columns.get_mut(count).unwrap_or(&mut new);
            if cells.next_element_seed(Nested { flattener, depth: 1 })?.is_none() {
                break;
            }
            if count == columns.len() {
                if index > 0 {
                    return Err(A::Error::custom(format_args!(
                        "row {index} has more than {count} cells, as others have"
                    )));
                }
                check_count(count)?;
                columns.push(new);
            }
            count += 1;
        }
        match columns.len() {
            all if all == count => Ok(()),
            all => Err(A::Error::custom(format_args!("row {index} has {count} cells, others have {all}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(dims: &[Option<usize>]) -> Port {
        Port { name: "x".to_owned(), datatype: "FP32".to_owned(), dims: dims.to_vec() }
    }

    fn split(json: &str) -> Result<Frame, String> {
        serde_json::from_str(json).map(|Split(frame)| frame).map_err(|error| error.to_string())
    }

    fn records(json: &str) -> Result<Frame, String> {
        serde_json::from_str(json).map(|Records(frame)| frame).map_err(|error| error.to_string())
    }

    /// What a model of one input makes of `frame`: extents, and elements as they are written.
    fn only_input(frame: Frame, rank: usize) -> (Vec<usize>, String) {
        match frame.into_tensors(&[port(&vec![None; rank])]).unwrap() {
            Tensors::Unnamed(data) => {
                let elements: Vec<String> = data.elements.iter().map(ToString::to_string).collect();
                (data.extents, elements.join(" "))
            }
            Tensors::Named(_) => panic!("a frame is the only input whatever its columns are called"),
        }
    }

    #[test]
    fn both_forms_of_a_frame_are_the_same() {
        let parts = split(r#"{"data": [[1, 2], [3, 4]], "columns": ["a", "b"], "index": [7, "x"]}"#).unwrap();
        assert_eq!(records(r#"[{"a": 1, "b": 2}, {"b": 4, "a": 3}]"#).unwrap(), parts);
        assert_eq!(only_input(parts, 2), (vec![2, 2], "1 2 3 4".to_owned()));
        let numbered = split(r#"{"columns": [0, "1"], "data": [[1, 2]]}"#).unwrap();
        assert_eq!(numbered.names.unwrap(), ["0", "1"]);
    }

    #[test]
    fn the_only_input_takes_all_cells_or_a_column_of_its_rank() {
        let column = || split(r#"{"data": [[1], [2]]}"#).unwrap();
        assert_eq!(only_input(column(), 1), (vec![2], "1 2".to_owned()));
        assert_eq!(only_input(column(), 2), (vec![2, 1], "1 2".to_owned()));
        let arrays = || split(r#"{"data": [[[1, 2]], [[3, 4]]]}"#).unwrap();
        assert_eq!(only_input(arrays(), 2), (vec![2, 2], "1 2 3 4".to_owned()));
        assert_eq!(only_input(arrays(), 3), (vec![2, 1, 2], "1 2 3 4".to_owned()));
        let pairs = split(r#"{"data": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}"#).unwrap();
        assert_eq!(only_input(pairs, 3), (vec![2, 2, 2], "1 2 3 4 5 6 7 8".to_owned()));
        for empty in [split(r#"{"data": []}"#), split(r#"{"data": [[], []]}"#), records("[]")] {
            assert_eq!(only_input(empty.unwrap(), 2), (vec![0], String::new()));
        }
    }

    #[test]
    fn several_inputs_take_the_columns_with_their_names() {
        let inputs = [port(&[None]), port(&[None, Some(2)])];
        let frame = split(r#"{"columns": ["a", "b"], "data": [[1, [2, 3]], [4, [5, 6]]]}"#).unwrap();
        let Tensors::Named(tensors) = frame.into_tensors(&inputs).unwrap() else { panic!("inputs have names") };
        let shapes: Vec<_> = tensors.iter().map(|(name, data)| (name.as_str(), &data.extents[..])).collect();
        assert_eq!(shapes, [("a", &[2][..]), ("b", &[2, 2])]);
        let nameless = split(r#"{"data": [[1, [2, 3]]]}"#).unwrap();
        assert!(nameless.into_tensors(&inputs).unwrap_err().to_string().contains("`columns` is missing"));
    }

    #[test]
    fn every_fault_is_named() {
        for (json, fault) in [
            ("[[1]]", "invalid type: sequence, expected an object"),
            (r#"{"columns": ["a"]}"#, "missing field `data`"),
            (r#"{"data": [[1]], "rows": 1}"#, "unknown field `rows`"),
            (r#"{"data": [1]}"#, "a row, which is an array of cells"),
            (r#"{"data": [[1, 2], [3]]}"#, "row 1 has 1 cells, others have 2"),
            (r#"{"data": [[1], [2, 3]]}"#, "row 1 has more than 1 cells"),
            (r#"{"data": [[1, 2]], "columns": ["a"]}"#, "there are 1 names of columns, and 2 cells in a row"),
            (r#"{"data": [[1]], "columns": [["a"]]}"#, "a name"),
            (r#"{"data": [[1], [[2]]]}"#, "ragged"),
            (r#"{"data": [["one"]]}"#, "string"),
            (r#"{"data": [[null]]}"#, "null"),
        ] {
            let message = split(json).unwrap_err();
            assert!(message.contains(fault), "{json}: {message}");
        }
        for (json, fault) in [("[[1]]", "records are objects"), (r#"{"a": [1]}"#, "an array of rows")] {
            let message = records(json).unwrap_err();
            assert!(message.contains(fault), "{json}: {message}");
        }
        let mixed = split(r#"{"data": [[1, [2]]]}"#).unwrap().into_tensors(&[port(&[None, None])]).unwrap_err();
        assert!(mixed.to_string().contains("cells of column 1 have another shape"), "{mixed}");
    }
}
