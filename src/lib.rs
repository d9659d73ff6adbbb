//! Every microservice gets one durable **twin**.
pub mod model;
pub mod store;
pub mod twin;
