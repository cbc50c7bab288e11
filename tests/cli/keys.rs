//! Keys and tenants, on the database alone.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::Sandbox;

#[test]
fn keys_are_shown_once_listed_and_revoked() {
    let sandbox = Sandbox::new();
    let key = sandbox.ok(&["keys", "create", "--name", "ci"]);
    let (id, secret) = key.trim().strip_prefix("wp_").unwrap().split_once('_').unwrap();
    assert_eq!((id.len(), secret.len()), (16, 64));
    sandbox.ok(&[
        "keys",
        "create",
        "--name",
        "team",
        "--tenant",
        "acme",
        "--scopes",
        "metrics,admin",
        "--valid-days",
        "2",
    ]);
    let listed = sandbox.ok(&["keys", "list"]);
    assert!(listed.contains(id) && !listed.contains(secret), "{listed}");
    let of_acme: Value = serde_json::from_str(&sandbox.ok(&["keys", "list", "--tenant", "acme", "--json"])).unwrap();
    assert_eq!(of_acme.as_array().unwrap().len(), 1);
    assert_eq!(of_acme[0]["scopes"], serde_json::json!(["admin", "metrics"]));
    assert!(of_acme[0]["expires_at"].is_string() && of_acme[0]["revoked_at"].is_null());

    assert_eq!(sandbox.run(&["keys", "revoke", id, "--tenant", "acme"]).status, 2, "it is another tenant's");
    sandbox.ok(&["keys", "revoke", id]);
    let of_default: Value =
        serde_json::from_str(&sandbox.ok(&["keys", "list", "--tenant", "default", "--json"])).unwrap();
    assert!(of_default[0]["revoked_at"].is_string());
}

#[test]
fn what_is_wrong_with_a_key_is_said_before_anything_is_made() {
    let sandbox = Sandbox::new();
    for (args, fault) in [
        (&["keys", "create", "--name", ""][..], "name"),
        (&["keys", "create", "--name", "x", "--valid-days", "0"], "valid_days"),
        (&["keys", "create", "--name", "x", "--scopes", "root"], "root"),
        (&["keys", "create", "--name", "x", "--tenant", "../x"], "../x"),
    ] {
        let said = sandbox.run(args);
        assert_eq!(said.status, 2, "{args:?}");
        assert!(said.stderr.contains(fault), "{}", said.stderr);
        assert_eq!(sandbox.files(), [""; 0]);
    }
    assert_eq!(sandbox.run(&["keys", "list", "--tenant", "nobody"]).status, 2);
    assert_eq!(sandbox.run(&["tenants", "bound", "nobody"]).status, 2);
}

#[test]
fn bounds_are_set_and_lifted() {
    let sandbox = Sandbox::new();
    let bounds = || -> Value {
        let listed: Value = serde_json::from_str(&sandbox.ok(&["tenants", "list", "--json"])).unwrap();
        listed[0]["bounds"].clone()
    };
    sandbox.ok(&["tenants", "bound", "default", "--max-stored-bytes", "1GiB", "--max-requests-per-minute", "60"]);
    let set = bounds();
    assert_eq!((&set["max_stored_bytes"], &set["max_requests_per_minute"]), (&(1_u64 << 30).into(), &60.into()));
    assert!(set["max_unfinished_jobs"].is_null());
    sandbox.ok(&["tenants", "bound", "default"]);
    assert!(bounds().as_object().unwrap().values().all(Value::is_null));
}

#[test]
fn keys_are_made_by_many_at_once_in_a_database_that_was_not_there() {
    let sandbox = Sandbox::new();
    let making: Vec<_> = (0..8)
        .map(|number| {
            let mut command = sandbox.command(&["keys", "create", "--name", &format!("key{number}")]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for made in making {
        let output = made.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let listed: Value = serde_json::from_str(&sandbox.ok(&["keys", "list", "--json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 8);
}
