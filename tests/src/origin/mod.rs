//! What stands at home: media servers of several manners.

pub mod home;
pub mod jellyfin;
pub mod nginx;
pub mod raw;
pub mod socket;
