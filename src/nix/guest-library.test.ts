import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { run } from "../core/process.ts";
import { GUEST_LIBRARY } from "./flake.ts";

/** What mkGuest makes of its arguments, and what it says of bad ones. Nothing is built. */

const root = mkdtempSync(join(tmpdir(), "mvm-guest-library-"));
after(() => rmSync(root, { recursive: true }));

async function evaluate(expression: string): Promise<{ value: unknown; error: string }> {
  const env = { PATH: process.env["PATH"], NIX_STATE_DIR: join(root, "state"), NIX_STORE_DIR: join(root, "store") };
  const args = ["--eval", "--strict", "--json", "--read-write-mode", "--expr", expression];
  const { exitCode, stdout, stderr } = await run("nix-instantiate", args, { env });
  return exitCode === 0 ? { value: JSON.parse(stdout), error: "" } : { value: undefined, error: stderr };
}

/** `attribute` of an image of Debian packages. */
const guest = (settings: string, attribute: string) => `
  (import ${GUEST_LIBRARY}/mk-guest.nix ({
    pkgs = import ${GUEST_LIBRARY}/debian/host-pkgs.nix { system = "x86_64-linux"; };
    name = "web";
  } // ${settings})).${attribute}`;

/** What the image's configuration says, with `accounts` as mkGuest makes them. */
const configuration = (settings: string) => `
  let
    given = { users = { }; services = { }; healthChecks = { }; hooks = { }; } // ${settings};
    common = { name = "web"; serviceGroup = "services"; };
    accounts = import ${GUEST_LIBRARY}/accounts.nix (common // { inherit (given) users; });
  in {
    inherit (accounts) passwd group;
    guest = builtins.fromJSON (import ${GUEST_LIBRARY}/guest-config.nix (common // {
      inherit accounts;
      inherit (given) services healthChecks hooks;
      hostname = "web";
    }));
  }`;

test("a service runs as app, and a health check has its intervals, unless the flake says otherwise", async () => {
  const { value, error } = await evaluate(
    configuration(`{
      services.web = { command = "serve"; env.PORT = 80; };
      healthChecks.up = { healthCmd = "true"; };
      healthChecks.page = { healthHttp = "http://127.0.0.1:80/"; };
      healthChecks.ping = { healthTcp = "127.0.0.1:6379"; healthSend = "PING\\r\\n"; healthExpect = "+PONG"; };
    }`),
  );
  assert.equal(error, "");
  assert.deepEqual((value as { guest: unknown }).guest, {
    version: 1,
    hostname: "web",
    serviceGroup: "services",
    services: {
      web: {
        command: "serve",
        preStart: null,
        env: { PORT: "80" },
        user: "app",
        logFile: null,
        directories: ["/home/app"],
        restartOnWake: false,
        stopTimeoutSecs: 10,
      },
    },
    healthChecks: {
      page: { healthHttp: "http://127.0.0.1:80/", healthIntervalSecs: 5, healthTimeoutSecs: 10, user: "app" },
      ping: {
        ...{ healthTcp: "127.0.0.1:6379", healthSend: "PING\r\n", healthExpect: "+PONG" },
        ...{ healthIntervalSecs: 5, healthTimeoutSecs: 10, user: "app" },
      },
      up: { healthCmd: "true", healthIntervalSecs: 5, healthTimeoutSecs: 10, user: "app" },
    },
    hooks: { preSnapshot: [], postRestore: [] },
  });
});

test("an image's own users have a group of their own and belong to the service group", async () => {
  const { value } = await evaluate(
    configuration(
      `{ users.redis = { uid = 200; home = "/var/lib/redis"; }; users.log = { uid = 201; group = "adm"; }; }`,
    ),
  );
  const { passwd, group } = value as { passwd: string; group: string };
  assert.match(passwd, /^root:x:0:0::\/root:\/bin\/sh$/m);
  assert.match(passwd, /^redis:x:200:200::\/var\/lib\/redis:\/usr\/sbin\/nologin$/m);
  assert.match(passwd, /^log:x:201:4::/m);
  assert.match(passwd, /^app:x:1000:1000::\/home\/app:\/bin\/sh$/m);
  assert.match(group, /^redis:x:200:$/m);
  assert.match(group, /^services:x:990:app,log,redis$/m);
});

test("what an image asks of Debian is known without a lock", async () => {
  const settings =
    '{ packages = [ "nginx" "curl" "curl" "debconf" ]; excludePackages = [ "perl" ]; debianLock = /nonexistent/debian.lock; }';
  const { value, error } = await evaluate(guest(settings, "debianRequest"));
  assert.equal(error, "");
  const request = value as Record<string, string[]>;
  assert.deepEqual(request["packages"], ["curl", "debconf", "nginx"]);
  assert.ok(request["excluded"]?.includes("perl"));
  assert.ok(request["excluded"]?.includes("dpkg"), "what only maintainer scripts need");
  assert.ok(!request["excluded"]?.includes("debconf"), "what was asked for by name stays");
});

test("an arm64 image asks for arm64 packages", async () => {
  const pkgs = `import ${GUEST_LIBRARY}/debian/host-pkgs.nix { system = "aarch64-linux"; }`;
  const { value } = await evaluate(guest(`{ pkgs = ${pkgs}; }`, "debianRequest"));
  const { image, architecture, kernel } = value as Record<string, string>;
  assert.deepEqual(
    { image, architecture, kernel },
    {
      image: "web-aarch64-linux",
      architecture: "arm64",
      kernel: "linux-image-cloud-arm64",
    },
  );
});

for (const [what, settings, message] of [
  ["no lock", "{ }", /hostPkgs needs debianLock = \.\/debian\.lock; \('mvmctl template build' writes it\)/],
  [
    "a lock that is not there",
    "{ debianLock = /nonexistent/debian.lock; }",
    /debian\.lock is missing: 'mvmctl template build' writes it/,
  ],
  ["a name that is no name", '{ name = "Web Server"; }', /the name 'Web Server' must be lower-case/],
  [
    "an unknown root file system",
    '{ rootfsType = "btrfs"; }',
    /rootfsType 'btrfs' is not one of erofs, squashfs, ext4/,
  ],
  ["an unknown argument", "{ service = { }; }", /unexpected argument 'service'/],
] as const) {
  test(`${what} is named before anything is built`, async () => {
    assert.match((await evaluate(guest(settings, "drvPath"))).error, message);
  });
}

for (const [what, settings, message] of [
  [
    "a misspelt setting of a service",
    '{ services.web = { command = "x"; prestart = "y"; }; }',
    /services\.web has unknown settings: prestart \(known: command, preStart/,
  ],
  ["a service without a command", "{ services.web = { }; }", /services\.web needs a command/],
  [
    "an empty command",
    "{ services.web.command = [ ]; }",
    /services\.web\.command must be a text for the shell or a list of words/,
  ],
  [
    "a service of a user who is not there",
    '{ services.web = { command = "x"; user = "redis"; }; }',
    /user is 'redis', who is no user of the image/,
  ],
  [
    "a health check that checks nothing",
    "{ healthChecks.up = { }; }",
    /healthChecks\.up needs exactly one of healthCmd, healthHttp, healthTcp/,
  ],
  [
    "a health check of two kinds",
    '{ healthChecks.up = { healthCmd = "x"; healthTcp = "127.0.0.1:80"; }; }',
    /healthChecks\.up needs exactly one of healthCmd, healthHttp, healthTcp/,
  ],
  [
    "a request to what is no address",
    '{ healthChecks.up = { healthHttp = "127.0.0.1:80"; }; }',
    /healthChecks\.up\.healthHttp must be like http:/,
  ],
  [
    "words that nobody hears",
    '{ healthChecks.up = { healthTcp = "127.0.0.1:80"; healthSend = "PING"; }; }',
    /healthSend needs healthExpect/,
  ],
  [
    "words for a command",
    '{ healthChecks.up = { healthCmd = "x"; healthExpect = "PONG"; }; }',
    /healthSend and healthExpect are for healthTcp/,
  ],
  [
    "an interval of nothing",
    '{ healthChecks.up = { healthCmd = "x"; healthIntervalSecs = 0; }; }',
    /healthIntervalSecs must be a whole number of seconds above 0/,
  ],
  [
    "an unknown hook",
    '{ hooks.preStart = [ "x" ]; }',
    /hooks has unknown settings: preStart \(known: preSnapshot, postRestore\)/,
  ],
  ["a user without a number", "{ users.redis = { }; }", /users\.redis needs a uid that never changes/],
  ["a number given twice", "{ users.redis.uid = 1000; }", /the uid 1000 is given to two users/],
  ["a user of the system", "{ users.root.uid = 7; }", /users\.root is there already/],
] as const) {
  test(`${what} is refused`, async () => {
    assert.match((await evaluate(configuration(settings))).error, message);
  });
}

test("a lock older than the flake's packages is refused", async () => {
  const lock = join(root, "debian.lock");
  const request = (await evaluate(guest('{ packages = [ "curl" ]; }', "debianRequest"))).value;
  writeFileSync(lock, JSON.stringify({ version: 1, images: { "web-x86_64-linux": { request } }, files: {} }));
  const { error } = await evaluate(guest(`{ packages = [ "wget" ]; debianLock = ${lock}; }`, "drvPath"));
  assert.match(error, /debian\.lock is older than the flake's packages/);
});

test("files of an image are quoted for the shell, and their paths stay inside it", async () => {
  const files = (set: string) =>
    `import ${GUEST_LIBRARY}/files.nix { name = "web"; files = ${set}; writeText = builtins.toFile; }`;
  const { value } = await evaluate(
    files(`{ "/etc/it's" = { text = "x"; mode = "0600"; }; "/usr/bin/vi" = { link = "nano; rm -rf /"; }; }`),
  );
  assert.match(
    String(value),
    /^install_file '\/etc\/it'\\''s' '[^']+-guest-file' '0600'\nlink_file '\/usr\/bin\/vi' 'nano; rm -rf \/'\n$/,
  );
  for (const path of ["etc/x", "/etc/../../x", "/", "/etc/", "/./x"]) {
    assert.match((await evaluate(files(`{ "${path}" = "x"; }`))).error, /must be an absolute path/, path);
  }
  assert.match(
    (await evaluate(files(`{ "/x" = { text = "x"; link = "y"; }; }`))).error,
    /must be a path, a text, or a set with one of source, text, link/,
  );
});
