//! A place in a document, which knows its own path for when something is wrong with it.

use serde_json::Value;

/// What is wrong, and where in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) field: String,
    pub(super) what: String,
}

/// A value and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Field<'a> {
    /// A whole document.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    /// Says what is wrong with it.
    pub(super) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { field: self.path.clone(), what: what.into() }
    }

    /// As it is written.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// A member that may be absent; null counts as absent.
    pub(super) fn may(&self, name: &str) -> Result<Option<Self>, Wrong> {
        match self.value {
            Value::Object(members) => {
                let value = members.get(name).filter(|value| !value.is_null());
                Ok(value.map(|value| Self { value, path: self.below(name) }))
            }
            Value::Null => Ok(None),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(self.wrong("must be a mapping of names to values"))
            }
        }
    }

    /// A member that must be there.
    pub(super) fn must(&self, name: &str) -> Result<Self, Wrong> {
        self.may(name)?.ok_or_else(|| Wrong { field: self.below(name), what: "is missing".to_owned() })
    }

    /// A text; numbers and flags are the text they are written as.
    pub(super) fn text(&self) -> Result<String, Wrong> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Number(_) => Ok(self.value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(self.wrong("must be a text")),
        }
    }

    /// A text that says something.
    pub(super) fn name(&self) -> Result<String, Wrong> {
        let text = self.text()?;
        if text.trim().is_empty() { Err(self.wrong("must not be empty")) } else { Ok(text) }
    }

    /// A flag.
    pub(super) fn flag(&self) -> Result<bool, Wrong> {
        match self.value {
            Value::Bool(flag) => Ok(*flag),
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Err(self.wrong("must be true or false"))
            }
        }
    }

    /// A number.
    pub(super) fn number(&self) -> Result<u64, Wrong> {
        self.value.as_u64().ok_or_else(|| self.wrong("must be a whole number, 0 or more"))
    }

    /// Its items.
    pub(super) fn items(&self) -> Result<Vec<Self>, Wrong> {
        let Value::Array(items) = self.value else { return Err(self.wrong("must be a list")) };
        let item = |(at, value)| Self { value, path: format!("{}[{at}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Its members.
    pub(super) fn members(&self) -> Result<Vec<(&'a str, Self)>, Wrong> {
        let Value::Object(members) = self.value else {
            return Err(self.wrong("must be a mapping of names to values"));
        };
        let member = |(name, value): (&'a String, &'a Value)| (name.as_str(), Self { value, path: self.below(name) });
        Ok(members.iter().map(member).collect())
    }

    /// The texts of a list that may be absent.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Wrong> {
        match self.may(name)? {
            Some(list) => list.items()?.iter().map(Self::text).collect(),
            None => Ok(Vec::new()),
        }
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}
