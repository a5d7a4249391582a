//! Building the incident, in order.

use tokio_util::sync::CancellationToken;

use super::error::SandboxError;
use super::incident::Story;
use super::layout::Layout;
use super::record::{self, FORMAT, Ports, Record};
use super::secrets::Passwords;
use super::servers::app::App;
use super::servers::postgres::{Primary, Running, Stop};
use super::servers::redis::Cache;
use super::tools::Tools;
use super::{Options, Tell, fill, inventory, keys, program};
use crate::process::free_ports;
use crate::store::Encryption;

pub struct Build<'a> {
    pub layout: &'a Layout,
    pub tools: &'a Tools,
    pub options: &'a Options,
    pub cancel: &'a CancellationToken,
    pub tell: Tell<'a>,
}

impl Build<'_> {
    pub async fn run(self) -> Result<(), SandboxError> {
        let (layout, tools, cancel) = (self.layout, self.tools, self.cancel);
        let (scale, seed) = (self.options.scale, self.options.seed);
        self.prepare()?;
        let [postgres, redis, app, restored_postgres, restored_redis] =
            free_ports().map_err(SandboxError::io("finding free ports for", layout.dir()))?;
        let ports = Ports { postgres, redis, app, restored_postgres, restored_redis };
        let passwords = Passwords::draw();
        let record = Record {
            format: FORMAT,
            scale,
            seed,
            ports,
            postgres_bin: tools.postgres_bin.clone(),
            redis_server: tools.redis_server.clone(),
            healthy: false,
        };
        record::write(&layout.record(), &record)?;
        keys::create(layout)?;
        if self.options.encrypted {
            let (text, _) = Encryption::generate();
            program::create_private(&layout.secrets())?;
            program::write(&layout.backup_key(), 0o600, text.expose())?;
        }
        inventory::write(layout, &passwords, &ports, self.options)?;

        let primary = Primary { layout, tools, passwords: &passwords, port: ports.postgres, scale, cancel };
        let cache = Cache { layout, tools, passwords: &passwords, port: ports.redis, cancel };
        let app = App { layout, port: ports.app, rate: scale.sizes().rate };

        let database = async {
            self.say("creating a PostgreSQL primary and filling it");
            primary.create().await?;
            primary.start(Running::Filling).await?;
            fill::postgres(&primary, seed).await?;
            primary.stop(Stop::Fast).await?;
            primary.start(Running::Serving).await
        };
        let carts = async {
            cache.create()?;
            cache.start().await?;
            fill::redis(&cache, scale, seed).await?;
            self.say("Redis has its carts and sessions");
            Ok(())
        };
        tokio::try_join!(database, carts)?;
        app.create(&passwords, ports.postgres, ports.redis)?;
        app.start().await?;
        self.say("the application takes orders");
        let story = Story { primary: &primary, cache: &cache, app: &app, scale, tell: self.tell };
        match self.options.healthy {
            true => {
                story.first_backups().await?;
                record::write(&layout.record(), &Record { healthy: true, ..record })
            }
            false => record::write(&layout.incident(), &story.run().await?),
        }
    }

    fn say(&self, line: &str) {
        (self.tell)(line);
    }

    /// The directories, the program, and the script that asks the ledger.
    fn prepare(&self) -> Result<(), SandboxError> {
        let layout = self.layout;
        let directories = [layout.bucket(), layout.logs(), layout.sockets(), layout.scratch(), layout.home()];
        directories.iter().try_for_each(|directory| program::create_private(directory))?;
        program::ensure(layout, &self.options.program)?;
        let (lifeboat, dir) = (layout.lifeboat(), layout.dir());
        let script = format!("#!/bin/sh\nexec {} sandbox ledger --dir {} --json\n", lifeboat.display(), dir.display());
        program::write(&layout.ledger_check(), 0o700, script)
    }
}
