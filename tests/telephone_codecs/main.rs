//! Telephones of every codec in one room: how they sound in wide band, what goes up untouched, what their silence and their
//! keys become. In virtual time; the judges are libopus as a browser uses it, and PESQ.

mod keys;
mod passing;
mod quality;
mod reports;
mod world;
