//! Claiming, keeping fresh, losing the claim.

use super::*;
