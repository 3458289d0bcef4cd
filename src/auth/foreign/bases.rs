use std::collections::HashMap;

use url::Url;

use crate::model::ConsoleType;

/// The bases of this gateway's own access URLs, for tokens whose maker names none: what a page's
/// origin is held against.
#[derive(Clone, Debug)]
pub struct Bases {
    pages: HashMap<ConsoleType, Url>,
    public: Url,
}

impl Bases {
    /// A page for each type that has one; `public` is how viewers reach this gateway.
    pub fn new(page: impl Fn(ConsoleType) -> Option<Url>, public: Url) -> Self {
        let pages = ConsoleType::ALL.into_iter();
        let pages = pages.filter_map(|console_type| Some((console_type, page(console_type)?)));
        Self {
            pages: pages.collect(),
            public,
        }
    }

    /// The base for a type.
    pub fn of(&self, console_type: ConsoleType) -> &Url {
        self.pages.get(&console_type).unwrap_or(&self.public)
    }
}
