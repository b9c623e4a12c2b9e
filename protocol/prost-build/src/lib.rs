//! Stands in for `prost-build` 0.13 in the build scripts of libsignal's crates.
//!
//! The real crate runs `protoc`, a C++ program that a fresh machine lacks. This one parses the `.proto`
//! files with `protox` (pure Rust) and lets `prost-build` 0.14 generate the code. It offers exactly what those
//! build scripts call: [`Config::new`], [`Config::protoc_arg`], [`Config::compile_protos`] and [`compile_protos`].

use std::{io, path::Path};

use prost_build_upstream::Config as Generator;

/// Options of one code generation.
#[derive(Default)]
pub struct Config {
    generator: Generator,
}

impl Config {
    /// Default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepted and ignored: the only argument in use switches on what `protox` always does.
    pub fn protoc_arg<S: AsRef<std::ffi::OsStr>>(&mut self, _argument: S) -> &mut Self {
        self
    }

    /// Parses `protos`, found below `includes`, and writes the generated code to `OUT_DIR`.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, or an output folder that cannot be written.
    pub fn compile_protos(
        &mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> io::Result<()> {
        let files = protox::compile(protos, includes).map_err(io::Error::other)?;
        self.generator.compile_fds(files)
    }
}

/// [`Config::compile_protos`] with default options.
///
/// # Errors
/// As [`Config::compile_protos`].
pub fn compile_protos(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> io::Result<()> {
    Config::new().compile_protos(protos, includes)
}
