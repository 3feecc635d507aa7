//! RocketMQ remoting: frames, headers, one file per family of requests. Pure functions.
