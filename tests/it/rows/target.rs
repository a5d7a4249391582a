//! Nothing is destroyed without its name.

use crate::support::sandbox::text;
use crate::support::small::Small;

#[test]
fn row_01_a_wrong_name_destroys_nothing() {
    let system = Small::system("orders-db", "postgres", "\"postgresql://app@127.0.0.1:1/orders\"");
    let step = "[[phases.steps]]\nid = \"wipe\"\ndo = \"command\"\ntitle = \"Wipe\"\nsystem = \"db\"\n\
                destroys = \"everything\"\nargv = [\"touch\", \"destroyed\"]\n";
    for (answer, wiped) in [
        ("", false),
        ("wipe = \"orders\"", false),
        ("wipe = \"yes\"", false),
        ("wipe = \"ORDERS-DB\"", false),
        ("wipe = \"orders-db\"", true),
    ] {
        let drill = Small::new(&system, "systems = { db = \"postgres\" }", step);
        std::fs::write(drill.path("answers.toml"), answer).unwrap();
        let output = drill.run(&["--answers", "answers.toml"]);
        assert_eq!(drill.exists("destroyed"), wiped, "destroyed by {answer:?}: {}", text(&output.stderr));
        assert_eq!(output.status.success(), wiped, "{}", text(&output.stderr));
    }
}
