//! Judging a name by many policies.

use std::hint::black_box;
use std::time::Instant;

use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::certificate::{IssuerRef, PrivateKey};
use certwright::domain::id::PolicyId;
use certwright::domain::issuer::Kind;
use certwright::domain::policy::{
    Approval, Keys, MOST_NAMES, NameRule, Policies, Policy, Spec, WantedKey, Wish,
};

use super::Options;
use super::report::{Report, Target};

const POLICIES: usize = 10_000;
const JUDGEMENTS: u32 = 10_000;

/// Microseconds for a name, allowed by one of so many policies of one namespace, and refused by all of them.
pub fn measure(options: &Options, report: &mut Report) {
    let policies = Policies::of("team", (0..POLICIES).map(policy).collect());
    let issuer = issuer();
    let key = WantedKey::from(&PrivateKey::default());
    for (what, name) in
        [("allowed", "a.b.c.zone-4711.example.com"), ("refused", "a.b.c.example.com")]
    {
        let wish = Wish { names: vec![name], issuer: &issuer, key };
        let judge = || {
            let start = Instant::now();
            for _ in 0..JUDGEMENTS {
                black_box(policies.judge(black_box(&wish)));
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(JUDGEMENTS)
        };
        let runs = (0..options.runs).map(|_| judge()).collect();
        let title = format!("judging a name by {POLICIES} policies, {what}");
        report.promise(title, " µs", runs, Target::AtMost(50.0));
    }
}

fn issuer() -> IssuerRef {
    IssuerRef { name: "le".into(), kind: Kind::ClusterIssuer }
}

fn policy(number: usize) -> Policy {
    let now = SystemClock.now();
    Policy {
        id: PolicyId::generate(now),
        name: format!("policy-{number}"),
        spec: Spec {
            namespaces: vec!["team".into()],
            names: vec![NameRule {
                pattern: format!("**.zone-{number}.example.com"),
                wildcards: true,
            }],
            issuers: vec![issuer()],
            keys: Keys::default(),
            max_names: MOST_NAMES,
            approval: Approval::Auto,
        },
        generation: 1,
        created_at: now,
        updated_at: now,
    }
}
