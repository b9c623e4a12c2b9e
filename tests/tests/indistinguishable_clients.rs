//! Vaults that the client itself made, with plans set up and run as its commands do, against plain ones: by the
//! statistics of `lapwing-statistics`, whose thousands of containers are made at the level of the vault, from seeds.
//!
//! The client draws from the system's generator, so no seed fixes the figures: an alarm is raised only below one in a
//! million, once in as many runs by chance.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

use std::{path::Path, sync::Arc};

use lapwing::{
    cli::prompt::TypedPassphrase,
    client::{Client, PlanRequest, World},
    net::{ConnectError, Link, Transport},
    store::PlanAction,
};
use lapwing_statistics::{
    layout::{Look, Scope},
    leak::Leak,
    sample::Sample,
    verdict::Comparison,
};
use lapwing_tests::scenario::Folder;
use lapwing_vault::{ContainerSize, Cost};
use lapwing_wire::{address::RelayAddress, time::Timestamp};

/// Vaults of each population.
const VAULTS: u64 = 40;
/// Below this an alarm is raised.
const LEVEL: f64 = 1e-6;

/// No network: no relay is reached, and none is asked for.
struct Unreachable;

#[async_trait::async_trait]
impl Transport for Unreachable {
    async fn connect(&self, _relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        Err(ConnectError::Unreachable)
    }
}

fn world() -> World {
    let clock = || Timestamp::from_millis(1_780_000_000_000);
    World {
        cost: Cost { memory_kib: 8, passes: 1, lanes: 1 },
        transport: Arc::new(Unreachable),
        clock: Arc::new(clock),
        offline: false,
    }
}

fn typed(text: &str) -> TypedPassphrase {
    TypedPassphrase::new(text.to_owned().into()).unwrap()
}

/// Makes a vault with two or three compartments; with a plan of one kind or the other, which has run in every second.
async fn vault(path: &Path, number: u64, with_plan: bool) -> Vec<u8> {
    let (owner, second) = (typed("heron orbit velvet candle"), typed("marsh plough ember ribbon"));
    let world = world();
    let mut client = Client::create(&world, path, ContainerSize::MIN, &owner, &mut |_, _| {}).unwrap();
    for name in ["shown", "more"].into_iter().take(1 + usize::try_from(number / 4 % 2).unwrap()) {
        client.create_compartment(name).unwrap();
    }
    if with_plan {
        let request = PlanRequest {
            name: "border".to_owned(),
            shows: vec!["shown".to_owned()],
            action: if number.is_multiple_of(2) { PlanAction::Hide } else { PlanAction::Destroy },
            alert: Vec::new(),
            text: String::new(),
            place: None,
            instructions: None,
            remote: None,
        };
        client.add_plan(request, &second).await.unwrap();
    }
    client.close().await.unwrap();
    if (number / 2).is_multiple_of(2) {
        let passphrase = if with_plan { &second } else { &owner };
        let mut client = Client::unlock(&world, path, passphrase).await.unwrap();
        let names: Vec<_> = client.compartments().iter().map(|one| one.name.clone()).collect();
        assert_eq!(
            names.contains(&"main".to_owned()),
            !with_plan,
            "a cover does not show the first compartment"
        );
        client.create_compartment("later").unwrap();
        client.close().await.unwrap();
    }
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

#[tokio::test]
async fn vaults_of_the_client_with_plans_that_ran_cannot_be_told_from_plain_ones() {
    let folder = Folder::new();
    let look = Look::new(Scope::Chosen(24), 1);
    let (mut with, mut without, mut leaking) =
        (Sample::empty(&look), Sample::empty(&look), Sample::empty(&look));
    for number in 0..VAULTS {
        without.add(&look, &vault(&folder.join("vault"), number, false).await);
        let mut image = vault(&folder.join("vault"), number, true).await;
        with.add(&look, &image);
        Leak::ZeroByteOfUnusedSlots.plant(&mut image, number);
        leaking.add(&look, &image);
    }
    let comparison = Comparison::of("vaults of the client", &look, &with, &without, 1).unwrap();
    let control = Comparison::of("the control", &look, &leaking, &without, 1).unwrap();
    eprintln!("{}{}", comparison.report(), control.report());
    assert!(comparison.least() > LEVEL, "{}", comparison.report());
    assert!(control.least() < LEVEL, "{}", control.report());
}
