//! Edges that are not to be believed, tunnels that end, moving.

use super::*;
