use super::*;

const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
const UBUNTU: &str = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n";
const MINT: &str = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
const FEDORA: &str = "NAME=\"Fedora Linux\"\nID=fedora\nVERSION_ID=42\n";
const ROCKY: &str = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n";
const ARCH: &str = "ID=arch\n";

#[test]
fn the_package_manager_is_told_by_os_release() {
    for (text, manager) in [
        (Some(DEBIAN), Some(Manager::Apt)),
        (Some(UBUNTU), Some(Manager::Apt)),
        (Some(MINT), Some(Manager::Apt)),
        (Some(FEDORA), Some(Manager::Dnf)),
        (Some(ROCKY), Some(Manager::Dnf)),
        (Some(ARCH), None),
        (Some(""), None),
        (None, Some(Manager::Brew)),
    ] {
        assert_eq!(Manager::of(text), manager, "{text:?}");
    }
}

#[test]
fn debian_as_root_without_redis() {
    let site = Site { manager: Manager::Apt, root: true, has_policy: false };
    assert_eq!(
        Plan::new(site, &[Need::Redis]).lines(),
        [
            "install -m 755 /dev/stdin /usr/sbin/policy-rc.d",
            "apt-get update",
            "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server",
            "rm -f /usr/sbin/policy-rc.d",
        ]
    );
}

#[test]
fn somebody_elses_policy_stays() {
    let site = Site { manager: Manager::Apt, root: false, has_policy: true };
    let plan = Plan::new(site, &[Need::Postgres, Need::PostgresContrib, Need::Redis, Need::SshKeygen]);
    assert_eq!(
        plan.lines(),
        [
            "sudo apt-get update",
            "sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql redis-server \
             openssh-client",
        ]
    );
    assert!(plan.cleanup.is_empty());
}

#[test]
fn fedora_and_homebrew() {
    let all = [Need::Postgres, Need::Redis];
    let dnf = Plan::new(Site { manager: Manager::Dnf, root: false, has_policy: false }, &all);
    assert_eq!(
        dnf.lines(),
        ["sudo dnf install -y --setopt=install_weak_deps=False postgresql-server postgresql-contrib \
             /usr/bin/redis-server /usr/bin/redis-cli"]
    );
    let brew = Plan::new(Site { manager: Manager::Brew, root: false, has_policy: false }, &all);
    assert_eq!(brew.lines(), ["brew install postgresql@17 redis"]);
}

#[test]
fn a_version_is_read() {
    assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
    assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
    assert_eq!(major("nonsense"), None);
}

#[test]
fn what_is_missing_is_named_with_its_command() {
    let site = Site { manager: Manager::Apt, root: false, has_policy: false };
    let missing = Missing { what: Need::Redis.what(), need: Need::Redis, command: command(Some(site), Need::Redis) };
    let failure = crate::event::Failure::from(SandboxError::Missing(vec![missing]));
    assert!(failure.why.contains("redis-server"), "{failure:?}");
    let now = failure.now.unwrap();
    assert!(now.contains("apt-get install -y --no-install-recommends redis-server"), "{now}");
    assert!(now.contains("--install"), "{now}");
}

/// This machine has what the tests need, or `tests/run` would have stopped.
#[test]
fn nothing_is_missing_here() {
    assert_eq!(missing(), []);
}
