//! Header and regions of containers pass NIST SP 800-22; a control that leaks does not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

use lapwing_statistics::{
    battery::{BITS, judge},
    layout::{COPIES, REGION, REGIONS},
    leak::Leak,
    population::{make, recipe},
    verdict::LEVEL,
};

const SEED: u64 = 0x6c61_7077_696e_6702;

fn report(findings: &[lapwing_statistics::verdict::Finding]) -> String {
    let line = |finding: &lapwing_statistics::verdict::Finding| {
        format!(
            "{}: p = {:.2e}, corrected {:.2e} {}\n",
            finding.name, finding.p, finding.corrected, finding.note
        )
    };
    findings.iter().take(5).map(line).collect()
}

#[test]
fn headers_and_regions_pass_the_battery_of_nist_and_a_leaking_region_does_not() {
    // With `destroy`, used after it ran; and without a second passphrase, used.
    let recipes = [recipe(true, 7 + 8, SEED), recipe(false, 1 + 12, SEED)];
    let images = recipes.map(|recipe| make(recipe).unwrap());
    let mut sequences: Vec<(String, &[u8])> = Vec::new();
    for (image, name) in images.iter().zip(["with", "without"]) {
        sequences.push((format!("both headers ({name})"), &image[COPIES[0].start..][..BITS / 8]));
        for region in 0..4 {
            let start = REGIONS + region * REGION;
            sequences.push((format!("begin of region {region} ({name})"), &image[start..][..BITS / 8]));
        }
    }
    let findings = judge(&sequences).unwrap();
    eprintln!("{} results of {} sequences\n{}", findings.len(), sequences.len(), report(&findings));
    assert!(findings.len() > 150 * sequences.len());
    assert!(findings[0].corrected > LEVEL, "{}", report(&findings));

    let mut caught = Vec::new();
    for leak in [Leak::WeakFilling, Leak::ZeroPadding] {
        let mut image = images[1].clone();
        leak.plant(&mut image, SEED);
        let all = (0..4).map(|region| &image[REGIONS + region * REGION + 300_000..][..BITS / 8]);
        let sequences: Vec<(String, &[u8])> =
            all.enumerate().map(|(region, bytes)| (format!("region {region}"), bytes)).collect();
        let findings = judge(&sequences).unwrap();
        caught.push((leak, findings[0].corrected));
        eprintln!("{}: {}", leak.name(), report(&findings[..1]));
    }
    assert!(caught.iter().all(|(_, corrected)| *corrected < LEVEL), "{caught:?}");
}
