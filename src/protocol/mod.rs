//! The protocols that clients speak; each turns frames into commands and answers into frames.

pub mod rocketmq;
