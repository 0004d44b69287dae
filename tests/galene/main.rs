//! A client of Galene against a scripted server, in virtual time: one topic a file.

mod any_order;
mod authorisation;
mod joining;
mod member;
mod names;
mod world;
