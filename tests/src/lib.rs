//! What the scenario tests and audits of Lapwing share. Never published, linked by no program.
//!
//! - [`audit`]: reads the project's own sources, papers, manifests and dependency graph and reports what breaks
//!   a rule of the house. Every rule is a pure function, tried on planted violations before it judges the tree.

pub mod audit;
