import { MvmError } from "../core/errors.ts";

/** Where a template's packages come from: nixpkgs, or the Debian packages of the machine that builds. */
export const PACKAGE_SETS = ["nixpkgs", "host"] as const;
export type PackageSet = (typeof PACKAGE_SETS)[number];

/** A kind of template to begin with: the parts of its flake.nix and README.md that are its own. All Nix is unindented. */
export interface Preset {
  /** The flake's description, and what `--preset` lists. */
  readonly summary: string;
  /** Bindings that the guest refers to, in Nix. */
  readonly bindings?: Readonly<Record<PackageSet, string>>;
  /** The list of packages, in Nix. */
  readonly packages: Readonly<Record<PackageSet, string>>;
  /** Arguments of mkGuest for the machine's packages alone, in Nix. */
  readonly hostOnly?: string;
  /** The other arguments of mkGuest, in Nix. */
  readonly guest: string;
  /** Ports to publish, as HOST:GUEST. */
  readonly ports: readonly string[];
  /** Commands that show an instance called NAME at work. */
  readonly tryIt: (name: string) => string;
  /** What to change first, as Markdown. */
  readonly change: string;
}

const minimal: Preset = {
  summary: "Busybox and the agent, and nothing else yet",
  packages: { nixpkgs: "[ ]", host: "[ ]" },
  guest: `
# Add what should run, and how to tell that it works:
#
# services.web.command = [ "httpd" "-f" "-p" "8080" ];
#
# healthChecks.page = {
#   healthHttp = "http://127.0.0.1:8080/";
#   healthIntervalSecs = 5;
#   healthTimeoutSecs = 5;
# };`,
  ports: [],
  tryIt: (name) => `mvmctl exec ${name} -- uname -a`,
  change: "There is no service yet. Uncomment the one in `flake.nix`, or write your own.",
};

const http: Preset = {
  summary: "A web page on port 8080, served by busybox",
  packages: { nixpkgs: "[ ]", host: "[ ]" },
  guest: `
files."/srv/www/index.html" = ''
  <!doctype html>
  <title>It works</title>
  <h1>It works</h1>
'';

services.web.command = [ "httpd" "-f" "-p" "8080" "-h" "/srv/www" ];

healthChecks.page = {
  healthHttp = "http://127.0.0.1:8080/";
  healthIntervalSecs = 5;
  healthTimeoutSecs = 5;
};`,
  ports: ["8080:8080"],
  tryIt: () => "curl http://127.0.0.1:8080/",
  change: 'The page is in `flake.nix`. A whole directory of pages goes in with\n`files."/srv/www" = ./www;`.',
};

const python: Preset = {
  summary: "A web service in Python on port 8000",
  packages: { nixpkgs: "[ pkgs.python3 ]", host: '[ "python3" ]' },
  guest: `
files."/srv/app/server.py" = ''
  import json
  import os
  from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


  class Handler(BaseHTTPRequestHandler):
      def do_GET(self):
          found = self.path in ("/", "/health")
          answer = {"path": self.path, "role": os.environ.get("MVM_ROLE")}
          body = (json.dumps(answer) + "\\n").encode()
          self.send_response(200 if found else 404)
          self.send_header("Content-Type", "application/json")
          self.send_header("Content-Length", str(len(body)))
          self.end_headers()
          self.wfile.write(body)


  ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
'';

services.web = {
  command = [ "python3" "/srv/app/server.py" ];
  env.PORT = "8000";
};

healthChecks.health = {
  healthHttp = "http://127.0.0.1:8000/health";
  healthIntervalSecs = 5;
  healthTimeoutSecs = 5;
};`,
  ports: ["8000:8000"],
  tryIt: () => "curl http://127.0.0.1:8000/",
  change:
    'The program is in `flake.nix`. To keep it in a file of its own, move it to `server.py` and write\n`files."/srv/app/server.py" = ./server.py;`. Python\'s libraries are packages too: `pkgs.python3.withPackages` of\nnixpkgs, `"python3-flask"` of Debian.',
};

const redis: Preset = {
  summary: "Redis on port 6379",
  packages: { nixpkgs: "[ pkgs.redis ]", host: '[ "redis-server" ]' },
  guest: `
# Only the ports that \`mvmctl run -p\` publishes reach the guest, so no password is set.
files."/etc/redis/mvm.conf" = ''
  bind 0.0.0.0
  port 6379
  protected-mode no
  dir /var/lib/redis
  appendonly yes
'';

users.redis.uid = 200;

services.redis = {
  command = [ "redis-server" "/etc/redis/mvm.conf" ];
  user = "redis";
  directories = [ "/var/lib/redis" ];
};

healthChecks.ping = {
  healthTcp = "127.0.0.1:6379";
  healthSend = "PING\\r\\n";
  healthExpect = "+PONG";
  healthIntervalSecs = 5;
  healthTimeoutSecs = 5;
};`,
  ports: ["6379:6379"],
  tryIt: (name) => `mvmctl exec ${name} -- redis-cli incr visits`,
  change:
    "The data is gone with the instance. To keep it, give the template a disk\n(`mvmctl template edit NAME --data-disk 1024`) and use `/mnt/data/redis` instead of `/var/lib/redis`.",
};

const postgres: Preset = {
  summary: "PostgreSQL on port 5432, with a database that is ready before the snapshot",
  bindings: {
    nixpkgs: `
version = "17";
bin = "\${pkgs."postgresql_\${version}"}/bin";`,
    host: `
# Debian 12's version. Debian 13 has 17.
version = "15";
bin = "/usr/lib/postgresql/\${version}/bin";`,
  },
  packages: { nixpkgs: `[ pkgs."postgresql_\${version}" ]`, host: `[ "postgresql-\${version}" ]` },
  hostOnly: `
# Debian's tools for several clusters side by side, the compiler for jit, and translations.
excludePackages = [ "postgresql-common" "postgresql-client-common" "libllvm14" "locales" ];`,
  guest: `
# Only the ports that \`mvmctl run -p\` publishes reach the guest, so every client is trusted.
files."/etc/postgresql/pg_hba.conf" = ''
  local all all trust
  host  all all all trust
'';
files."/etc/postgresql/postgresql.conf" = ''
  listen_addresses = '*'
  unix_socket_directories = '/run/postgresql'
  hba_file = '/etc/postgresql/pg_hba.conf'
  jit = off
'';

# Made beside its place and renamed, so that an interrupted start leaves nothing half made.
files."/usr/local/bin/init-database" = {
  mode = "0755";
  text = ''
    #!/bin/sh
    set -eu
    [ ! -e "$PGDATA/PG_VERSION" ] || exit 0
    rm -rf "$PGDATA.new"
    \${bin}/initdb --pgdata "$PGDATA.new" --username postgres --auth trust \\
      --encoding UTF8 --locale C --no-sync --no-instructions
    sync
    mv "$PGDATA.new" "$PGDATA"
  '';
};

# A service is stopped with SIGTERM, at which PostgreSQL waits for its clients to leave. SIGINT stops it at once and
# cleanly (PostgreSQL's manual, "Shutting Down the Server"). A trapped signal ends the first wait.
files."/usr/local/bin/run-database" = {
  mode = "0755";
  text = ''
    #!/bin/sh
    \${bin}/postgres -D "$PGDATA" -c config_file=/etc/postgresql/postgresql.conf &
    server=$!
    trap 'kill -INT $server' TERM
    wait $server
    wait $server
  '';
};

users.postgres.uid = 201;

services.postgres = {
  preStart = "/usr/local/bin/init-database";
  command = [ "/usr/local/bin/run-database" ];
  user = "postgres";
  # On a disk if the template has one (--data-disk), else in memory.
  env.PGDATA = "/mnt/data/postgresql/\${version}";
  directories = [ "/mnt/data/postgresql" "/run/postgresql" ];
};

# A query, not only an open port: healthy means that it answers.
healthChecks.query = {
  healthCmd = "\${bin}/psql -h /run/postgresql -U postgres -Atc 'SELECT 1'";
  user = "postgres";
  healthIntervalSecs = 5;
  healthTimeoutSecs = 10;
};

# What is in the snapshot then need not be replayed after a crash of a restored clone.
hooks.preSnapshot = [ "\${bin}/psql -h /run/postgresql -U postgres -Atc CHECKPOINT" ];`,
  ports: ["5432:5432"],
  tryIt: () => "psql -h 127.0.0.1 -U postgres -c 'SELECT version()'",
  change:
    "The data is gone with the instance. To keep it, give the template a disk:\n`mvmctl template edit NAME --data-disk 1024`. Tables that every instance begins with are made in `init-database`.",
};

const worker: Preset = {
  summary: "A job that works in the background, without a port",
  packages: { nixpkgs: "[ ]", host: "[ ]" },
  guest: `
# The work: replace it by your program.
files."/srv/worker/work" = {
  mode = "0755";
  text = ''
    #!/bin/sh
    while true; do
      echo "the $MVM_ROLE works"
      touch /var/lib/worker/alive
      sleep 5
    done
  '';
};

services.worker = {
  command = [ "/srv/worker/work" ];
  directories = [ "/var/lib/worker" ];
  # Clones of one snapshot must not all go on with the job that it was in the middle of.
  restartOnWake = true;
};

# Healthy while the last sign of life is younger than a minute.
healthChecks.alive = {
  healthCmd = "find /var/lib/worker/alive -mmin -1 | grep -q .";
  healthIntervalSecs = 5;
  healthTimeoutSecs = 5;
};`,
  ports: [],
  tryIt: (name) => `mvmctl logs ${name}`,
  change:
    "The program is `/srv/worker/work` in `flake.nix`. Its role (`mvmctl template edit NAME --role ROLE`) reaches it as\n`MVM_ROLE`, and what `mvmctl run --env K=V` sets as well.",
};

export const PRESETS = { minimal, http, python, redis, postgres, worker } as const satisfies Record<string, Preset>;
export const DEFAULT_PRESET = "http" satisfies keyof typeof PRESETS;

/** @throws MvmError `UNKNOWN_PRESET`, with those that there are */
export function parsePreset(text: string): Preset {
  const found = Object.entries(PRESETS).find(([name]) => name === text)?.[1];
  if (found) return found;
  throw new MvmError("UNKNOWN_PRESET", `there is no preset '${text}'`, {
    hint: `choose one of: ${Object.keys(PRESETS).join(", ")}`,
  });
}
