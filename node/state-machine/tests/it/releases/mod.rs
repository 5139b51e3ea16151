//! Releases from outside: what every command comes to in every stage (`tests/golden/releases.txt`, written anew with
//! `UPDATE=1`; the difference is the review), and random stories in which nothing may break a promise.

mod grid;
mod stories;
mod world;
