{
  description = "PostgreSQL 15, from Debian, with a database that is ready before the snapshot";

  # mvmctl puts its own guest library here when it builds.
  inputs.mvm.url = "path:../../nix";

  outputs = { self, mvm }:
    let
      psql = "/usr/lib/postgresql/15/bin/psql -h /run/postgresql -U postgres -At";
    in
    {
      packages.x86_64-linux.default = mvm.lib.mkGuest {
        pkgs = mvm.hostPkgs.x86_64-linux;
        debianLock = ./debian.lock;
        name = "postgres";
        packages = [ "postgresql-15" ];
        # Debian's tools for several clusters side by side, the compiler for jit (which is off), and translations.
        excludePackages = [ "postgresql-common" "postgresql-client-common" "libllvm14" "locales" ];

        files = {
          "/etc/postgresql/postgresql.conf" = ./postgresql.conf;
          "/etc/postgresql/pg_hba.conf" = ./pg_hba.conf;
          "/usr/local/bin/init-database" = { source = ./init-database; mode = "0755"; };
          "/usr/local/bin/run-database" = { source = ./run-database; mode = "0755"; };
        };

        users.postgres.uid = 201;

        services.postgres = {
          preStart = "init-database";
          command = [ "run-database" ];
          user = "postgres";
          # A disk if the template has one (--data-disk), else memory.
          env.PGDATA = "/mnt/data/postgresql/15";
          directories = [ "/mnt/data/postgresql" "/run/postgresql" ];
        };

        # A query, not only an open port: healthy means that it answers.
        healthChecks.query = {
          healthCmd = "${psql} -c 'SELECT 1'";
          user = "postgres";
          healthIntervalSecs = 5;
          healthTimeoutSecs = 10;
        };

        # What is in the snapshot then need not be replayed after a crash of a restored clone.
        hooks.preSnapshot = [ "${psql} -c CHECKPOINT" ];
      };
    };
}
