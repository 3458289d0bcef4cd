//! Placeholder of the integration tests.
