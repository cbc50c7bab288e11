//! The search for the smallest version within an allowed loss, or for the best one within a size.
//!
//! Trials are compressed and measured one after the other, selected on the validation split; the chosen one is measured on
//! the test split, once. What the next trial is follows from the ones before ([`grid`] for a space that was given,
//! [`walk`] else), and each is written down when it is finished ([`log`]), so that a search survives its process.

mod data;
mod error;
mod grid;
mod lab;
mod log;
mod plan;
mod report;
mod run;
mod space;
mod spec;
mod trial;
mod walk;

pub use data::{SearchData, SplitData};
pub use error::SearchError;
pub use lab::{Lab, TrialFiles};
pub use plan::Plan;
pub use report::{SearchEnd, SearchReport};
pub use run::{Found, run};
pub use space::Space;
pub use spec::{Search, SearchBudget};
pub use trial::{Outcome, Point, Proposal, Trial, TrialStage};
