//! The settings: what the program's help says, and what the documents say.

use std::collections::BTreeSet;

use crate::harness::Sandbox;

/// A flag and its variable.
type Setting = (String, String);

/// The settings in a help text: each flag, with the variable that is named before the next one.
fn settings_of_help(help: &str) -> BTreeSet<Setting> {
    let mut settings = BTreeSet::new();
    let mut flag = None;
    for line in help.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("--") {
            flag = rest.split(' ').next();
        }
        if let Some((_, rest)) = line.split_once("[env: ") {
            let variable = rest.split(['=', ']']).next().unwrap();
            settings.insert((format!("--{}", flag.unwrap()), variable.to_owned()));
        }
    }
    settings
}

/// The settings in the table of docs/operations.md.
fn settings_of_documents() -> BTreeSet<Setting> {
    let page = include_str!("../../docs/operations.md");
    let section = page.split("\n## Settings").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |row: &str, index| row.split('|').nth(index).unwrap_or_default().trim().trim_matches('`').to_owned();
    rows.map(|row: &str| (cell(row, 1), cell(row, 2))).collect()
}

#[test]
fn documents_list_the_settings_that_there_are_and_no_others() {
    let sandbox = Sandbox::new();
    let documented = settings_of_documents();
    assert!(documented.contains(&("--data-dir".to_owned(), "WEIGHTPRESS_DATA_DIR".to_owned())), "{documented:?}");
    for command in ["serve", "worker"] {
        assert_eq!(settings_of_help(&sandbox.ok(&[command, "--help"])), documented, "{command}");
    }
}
