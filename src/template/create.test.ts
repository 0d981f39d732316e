import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { parseTemplateName } from "../core/names.ts";
import { run } from "../core/process.ts";
import { createTemplate, createTemplates, registerFromDirectory } from "./create.ts";
import { initTemplate } from "./init.ts";
import { TEMPLATE_DEFAULTS } from "./spec.ts";
import { listTemplates, loadSpec } from "./store.ts";

const web = parseTemplateName("web");

test("a template has the settings it was made with, and its flake's absolute path", () => {
  using data = useDataDirectory();
  const flake = data.flake("service");
  const spec = createTemplate(data.ctx, web, { ...TEMPLATE_DEFAULTS, flake: "./service", memMiB: 256 }, data.root);
  const { createdAt, ...rest } = spec;
  assert.deepEqual(rest, {
    version: 1,
    name: "web",
    flake,
    profile: "default",
    role: "worker",
    cpus: 2,
    memMiB: 256,
    dataDiskMiB: 0,
  });
  assert.ok(Math.abs(Date.now() - Date.parse(createdAt)) < 60_000);
  assert.deepEqual(loadSpec(data.paths, web), spec);
});

test("a name that is taken is refused, and what has it is left alone", () => {
  using data = useDataDirectory();
  const flake = data.flake("service");
  const first = createTemplate(data.ctx, web, TEMPLATE_DEFAULTS, flake);
  assert.throws(() => createTemplate(data.ctx, web, { ...TEMPLATE_DEFAULTS, cpus: 8 }, flake), {
    code: "TEMPLATE_EXISTS",
    hint: /template edit web.*template delete web/,
  });
  assert.deepEqual(loadSpec(data.paths, web), first);
});

test("a failed creation leaves nothing behind", () => {
  using data = useDataDirectory();
  data.flake("service");
  const bad = [
    { ...TEMPLATE_DEFAULTS, flake: "./nowhere" },
    { ...TEMPLATE_DEFAULTS, flake: "./service", cpus: 0 },
    { ...TEMPLATE_DEFAULTS, flake: "./service", role: "two words" },
  ];
  for (const settings of bad) assert.throws(() => createTemplate(data.ctx, web, settings, data.root));
  assert.ok(!existsSync(data.paths.templates));
});

test("settings from a program are checked like those from the command line", () => {
  using data = useDataDirectory();
  const settings = { ...TEMPLATE_DEFAULTS, memMiB: 1.5 };
  assert.throws(() => createTemplate(data.ctx, web, settings, data.flake("service")), {
    code: "INVALID_SETTINGS",
    message: /memMiB/,
  });
});

test("of several processes that create one name at once, exactly one wins", async () => {
  using data = useDataDirectory();
  const flake = data.flake("service");
  const script = `
    import { createTemplate } from ${JSON.stringify(import.meta.resolve("./create.ts"))};
    import { resolvePaths } from ${JSON.stringify(import.meta.resolve("../core/paths.ts"))};
    const ctx = { paths: resolvePaths(process.env), env: process.env };
    const settings = { ...${JSON.stringify(TEMPLATE_DEFAULTS)}, cpus: Number(process.argv[1]) };
    try { createTemplate(ctx, "web", settings, ${JSON.stringify(flake)}); console.log("won"); } catch (error) { console.log(error.code); }
  `;
  const create = (cpus: number) =>
    run(process.execPath, ["--input-type=module", "--eval", script, String(cpus)], { env: data.ctx.env });
  const results = await Promise.all([1, 2, 3, 4].map(create));
  const said = results.map(({ stdout, stderr }) => stdout.trim() || stderr);
  assert.deepEqual([...said].sort(), ["TEMPLATE_EXISTS", "TEMPLATE_EXISTS", "TEMPLATE_EXISTS", "won"]);
  assert.equal(loadSpec(data.paths, web).cpus, said.indexOf("won") + 1);
  assert.deepEqual(readdirSync(data.paths.templates), ["web"]);
});

test("several roles of one flake become several templates", () => {
  using data = useDataDirectory();
  const specs = createTemplates(data.ctx, "shop", ["worker", "gateway"], TEMPLATE_DEFAULTS, data.flake("service"));
  assert.deepEqual(
    specs.map(({ name, role }) => [name, role]),
    [
      ["shop-worker", "worker"],
      ["shop-gateway", "gateway"],
    ],
  );
  assert.deepEqual(
    listTemplates(data.paths).map(({ name }) => name),
    ["shop-gateway", "shop-worker"],
  );
});

test("several roles: all or none", () => {
  using data = useDataDirectory();
  const flake = data.flake("service");
  createTemplate(data.ctx, parseTemplateName("shop-gateway"), TEMPLATE_DEFAULTS, flake);
  const attempts: [string[], string][] = [
    [["worker", "gateway"], "TEMPLATE_EXISTS"],
    [["worker", "worker"], "INVALID_ROLES"],
    [[], "INVALID_ROLES"],
    [["worker", "a b"], "INVALID_NAME"],
    [["worker", "Upper"], "INVALID_NAME"],
  ];
  for (const [roles, code] of attempts) {
    assert.throws(() => createTemplates(data.ctx, "shop", roles, TEMPLATE_DEFAULTS, flake), { code }, roles.join());
  }
  assert.deepEqual(readdirSync(data.paths.templates), ["shop-gateway"]);
});

test("several roles: a name that is taken at the last moment takes the others back", () => {
  using data = useDataDirectory();
  mkdirSync(data.paths.templates, { recursive: true });
  // It looks free, and a directory can't be put in its place.
  symlinkSync("nowhere", join(data.paths.templates, "shop-gateway"));
  assert.throws(() =>
    createTemplates(data.ctx, "shop", ["worker", "gateway"], TEMPLATE_DEFAULTS, data.flake("service")),
  );
  assert.deepEqual(readdirSync(data.paths.templates), ["shop-gateway"]);
});

test("a fresh scaffold registers itself: the flake of the working directory, or of its subdirectory of that name", () => {
  using data = useDataDirectory();
  const here = join(data.root, "scaffold");
  initTemplate({ name: web, preset: "http", pkgs: "host", directory: here });
  assert.equal(registerFromDirectory(data.ctx, web, here)?.flake, here);
  assert.match(data.notes.join(), /registered web: .*scaffold, 2 CPUs, 1024 MiB/);
  assert.equal(registerFromDirectory(data.ctx, web, here), undefined, "it is registered already");

  const below = data.flake("scaffold/api");
  assert.equal(registerFromDirectory(data.ctx, parseTemplateName("api"), here)?.flake, below);
  assert.equal(registerFromDirectory(data.ctx, parseTemplateName("own"), data.flake("own"))?.name, "own");
});

test("a flake of another name is not registered under a name that was mistyped", () => {
  using data = useDataDirectory();
  const here = join(data.root, "scaffold");
  initTemplate({ name: web, preset: "http", pkgs: "host", directory: here });
  const mistyped = (cwd: string) => () => registerFromDirectory(data.ctx, parseTemplateName("wbe"), cwd);
  assert.throws(mistyped(here), {
    code: "TEMPLATE_NOT_FOUND",
    message: /no template 'wbe'/,
    hint: /template build web; .*template create wbe --flake /,
  });
  assert.throws(mistyped(data.flake("by-hand")), { code: "TEMPLATE_NOT_FOUND", hint: /^to make it .*create wbe/ });
  assert.deepEqual(listTemplates(data.paths), []);
});

test("where there is no flake, nothing is registered", () => {
  using data = useDataDirectory();
  mkdirSync(join(data.root, "web"));
  assert.equal(registerFromDirectory(data.ctx, web, data.root), undefined);
  assert.ok(!existsSync(data.paths.templates));
});
