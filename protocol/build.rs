//! Refuses to build without the portable libcrux code.
//!
//! libcrux stores a half-done encapsulation in different byte orders in its AVX2 and its portable code, so a
//! session written by one breaks under the other (docs/decisions/0001). `.cargo/config.toml` sets both variables;
//! a build that does not see that file would make vaults that die when they move to another processor.

/// Variables that libcrux-ml-kem's build script reads, and the values it takes as "yes".
const REQUIRED: [&str; 2] = ["LIBCRUX_DISABLE_SIMD256", "LIBCRUX_DISABLE_SIMD128"];
const YES: [&str; 3] = ["1", "y", "Y"];

fn main() -> Result<(), String> {
    for name in REQUIRED {
        println!("cargo:rerun-if-env-changed={name}");
        if !std::env::var(name).is_ok_and(|value| YES.contains(&value.as_str())) {
            return Err(format!("{name} is not set to 1: build with the repository's .cargo/config.toml"));
        }
    }
    Ok(())
}
