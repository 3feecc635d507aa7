//! Which messages a subscription wants, judged by the hash of the tag in the ConsumeQueue.

use std::rc::Rc;

use crate::base::string_hash;
use crate::command::Subscription;

/// A TAG expression, ready for use (P§4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Everything.
    All,
    /// Messages whose tag hashes to one of these.
    Codes(Vec<i32>),
}

impl Filter {
    /// `*`, nothing, or `a || b`. The hashes that clients send along are never used: Go hashes bytes and
    /// C++ sends `atoi(tag)` (P§6 gotcha 46).
    #[must_use]
    pub fn of_tags(expression: &str) -> Self {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Self::All;
        }
        let codes: Vec<i32> = expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(string_hash)
            .collect();
        if codes.is_empty() {
            return Self::All;
        }
        Self::Codes(codes)
    }

    /// Of a heartbeat: by the expression, or by the tags where a client sends only these.
    #[must_use]
    pub fn of_subscription(subscription: &Subscription) -> Self {
        if subscription.expression.is_empty() && !subscription.tags.is_empty() {
            return Self::of_tags(&subscription.tags.join("||"));
        }
        Self::of_tags(&subscription.expression)
    }

    /// Whether a unit with this tags code is wanted. Different tags may share a code: clients compare the
    /// text again.
    #[must_use]
    pub fn matches(&self, tags_code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => codes.contains(&(tags_code as i32)),
        }
    }
}

/// Filters of expressions that come with pulls; the one that nearly all send is made once.
#[derive(Debug)]
pub(super) struct Filters {
    all: Rc<Filter>,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            all: Rc::new(Filter::All),
        }
    }
}

impl Filters {
    pub(super) fn of(&self, expression: &str) -> Rc<Filter> {
        match Filter::of_tags(expression) {
            Filter::All => Rc::clone(&self.all),
            filter @ Filter::Codes(_) => Rc::new(filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_trimmed_hashed_and_compared() {
        assert_eq!(Filter::of_tags(" * "), Filter::All);
        assert_eq!(Filter::of_tags(""), Filter::All);
        let filter = Filter::of_tags("TagA ||  中文");
        assert!(filter.matches(2_598_919));
        assert!(filter.matches(646_394));
        assert!(!filter.matches(0), "a message without a tag is not wanted");
        let negative = Filter::of_tags("a tag that is long enough");
        assert!(
            negative.matches(i64::from(-1_920_693_006i32)),
            "sign-extended"
        );
    }
}
