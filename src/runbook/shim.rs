//! Stands in until the parser lands; whoever brings the parser deletes this file.

use super::Runbook;

#[derive(Debug, thiserror::Error)]
#[error("the parser has not landed yet")]
pub struct Problems;

pub fn parse(_source: &str, _name: &str) -> Result<Runbook, Problems> {
    Err(Problems)
}

pub mod placeholders {
    #[derive(Debug)]
    pub struct MissingVariable;

    pub fn expand(text: &str, _lookup: impl Fn(&str) -> Option<String>) -> Result<String, MissingVariable> {
        Ok(text.to_owned())
    }
}
