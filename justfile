# One command for each thing a developer does. `just` alone lists them.
# Every recipe is a plain cargo or script call, so none needs just: it only saves typing.

set shell := ["bash", "-euo", "pipefail", "-c"]

# The list of recipes.
default:
    @just --list

# What continuous integration runs: format, lints, documentation, all tests.
check:
    ./.ci/run

# Rewrites the sources in the house format.
fmt:
    cargo fmt --all

# Lints of every target; warnings are errors.
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Developer documentation of every package; warnings are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# All tests, or those that the arguments choose: `just test -p lapwing-vault`.
test *arguments:
    ./tests/run {{ arguments }}

# The narrated demonstration on real processes.
demo:
    cargo build --release --locked --bins
    ./target/release/lapwing demo

# What users and operators get, in target/dist.
dist:
    cargo build --profile dist --locked --bins

# A story on real processes, and what an examiner finds who knows everything (docs/examiner.md).
examiner ending="destroy":
    cargo build --locked -p lapwing-relay -p lapwing-tests --bins
    LAPWING_RELAY_BIN=target/debug/lapwing-relay ./target/debug/lapwing-examiner story {{ ending }}

# Licences, bans and sources of the dependencies: no network once the crates are downloaded.
deny:
    cargo deny --locked check bans licenses sources

# The advisory database too: needs the network.
advisories:
    cargo deny --locked check advisories

# One fuzz target for a number of seconds: `just fuzz protocol/wire frame 60`.
fuzz folder target seconds="60":
    cd {{ folder }} && cargo fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }}

# The benches of one package: `just bench lapwing-vault`.
bench package *arguments:
    cargo bench --locked -p {{ package }} {{ arguments }}
