//! What edges ask the control plane, and how it knows that it is them.

mod identity;

pub(crate) use identity::{CoreEdge, EdgeAuth, HEADER, Identifying, IdentityError, NoEdges};
