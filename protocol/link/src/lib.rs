//! One connection between an agent and an edge, whichever transport carries it.
