import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findProgram, run } from "../../src/core/process.ts";
import { type Definitions, schemaErrors } from "../support/json-schema.ts";
import { type Mvmctl, REPOSITORY, useMvmctl } from "../support/mvmctl.ts";

const FIXTURES = join(REPOSITORY, "test", "fixtures");
/** The first build downloads and compiles Nomad's parser. */
const GO_BUILD_MS = 300_000;

describe("mvmctl export", () => {
  let mvm: Mvmctl;
  let program: string;
  before(() => {
    mvm = useMvmctl();
    // systemd-analyze wants programs that are there.
    program = join(mvm.dataDir, "mvmctl");
    writeFileSync(program, "#!/bin/sh\n", { mode: 0o755 });
  });
  after(() => mvm[Symbol.dispose]());

  /** Exports into a directory of its own, and returns that. */
  async function exported(engine: string, ...more: string[]): Promise<string> {
    const directory = join(mvm.dataDir, `out-${readdirSync(mvm.dataDir).length}`);
    await mvm.ok(["export", engine, "--template", "my-web", "-o", directory, "--program", program, ...more]);
    return directory;
  }

  describe("systemd", () => {
    async function verify(directory: string) {
      const units = readdirSync(directory).filter((name) => !name.endsWith(".d"));
      const paths = units.map((name) => join(directory, name.replace("@.", "@1.")));
      return run("systemd-analyze", ["verify", "--man=no", ...paths]);
    }

    test("the units pass systemd-analyze, which finds faults", async (t) => {
      if (!findProgram("systemd-analyze", process.env)) return t.skip("there is no systemd-analyze");
      const directory = await exported("systemd", "--count", "3", "-p", "8080:80", "-p", "0.0.0.0:9000:90");
      const found = await verify(directory);
      assert.deepEqual([found.exitCode, found.stderr], [0, ""]);
      const unit = join(directory, "my-web@.service");
      writeFileSync(unit, readFileSync(unit, "utf8").replace("KillMode=mixed", "KillMode=sometimes"));
      assert.match((await verify(directory)).stderr, /KillMode|kill mode/i);
    });

    test("each VM has a name and host ports of its own", async () => {
      const directory = await exported("systemd", "--count", "2", "-p", "8080:80");
      const unit = readFileSync(join(directory, "my-web@.service"), "utf8");
      assert.match(unit, /^ExecStartPre=\S+ template pull my-web$/m);
      assert.match(unit, /^ExecStart=\S+ run --template my-web --name my-web-%i --foreground \$MVM_RUN_ARGUMENTS$/m);
      const ports = (number: number) =>
        readFileSync(join(directory, `my-web@${number}.service.d`, "ports.conf"), "utf8");
      assert.match(ports(1), /-p 127\.0\.0\.1:8080:80/);
      assert.match(ports(2), /-p 127\.0\.0\.1:8081:80/);
      const target = readFileSync(join(directory, "my-web.target"), "utf8");
      assert.deepEqual(target.match(/^Wants=.*$/gm), ["Wants=my-web@1.service", "Wants=my-web@2.service"]);
    });
  });

  test("nomad: Nomad's own parser reads the job as it is meant", async (t) => {
    if (!findProgram("go", process.env)) return t.skip("there is no Go to build Nomad's parser with");
    const parser = join(mvm.dataDir, "parse-job");
    const source = join(FIXTURES, "nomad-jobspec");
    const built = await run("go", ["build", "-o", parser, "."], { cwd: source, timeoutMs: GO_BUILD_MS });
    if (built.exitCode !== 0) return t.skip(`Nomad's parser could not be built: ${built.stderr.slice(-300)}`);
    const directory = await exported("nomad", "--count", "4", "-p", "8080:80");
    const text = readFileSync(join(directory, "my-web.nomad.hcl"), "utf8");
    const parsed = await run(parser, [], { input: text });
    assert.equal(parsed.exitCode, 0, parsed.stderr);
    const [group] = JSON.parse(parsed.stdout).TaskGroups;
    assert.equal(group.Count, 4);
    const [pull, vm] = group.Tasks;
    assert.equal(pull.Lifecycle.Hook, "prestart");
    assert.deepEqual(pull.Config, { command: program, args: ["template", "pull", "my-web"] });
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Nomad's variables
    const published = ["-p", "${NOMAD_IP_p80}:${NOMAD_PORT_p80}:80"];
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Nomad's variables
    const name = "my-web-${NOMAD_ALLOC_INDEX}";
    assert.deepEqual(vm.Config.args, ["run", "--template", "my-web", "--name", name, "--foreground", ...published]);
    assert.deepEqual([vm.KillSignal, vm.KillTimeout], ["SIGTERM", 30e9]);
    assert.equal(group.Networks[0].DynamicPorts[0].Label, "p80");
    assert.equal((await run(parser, [], { input: text.replace("kill_signal", "kill_sginal") })).exitCode, 1);
  });

  describe("kubernetes", () => {
    // A subset of the published schemas, which says itself where it is from.
    const { $defs } = JSON.parse(readFileSync(join(FIXTURES, "kubernetes-1.37.json"), "utf8")) as {
      $defs: Definitions;
    };
    const KINDS: Record<string, string> = {
      StatefulSet: "io.k8s.api.apps.v1.StatefulSet",
      Service: "io.k8s.api.core.v1.Service",
    };
    const items = (directory: string) =>
      JSON.parse(readFileSync(join(directory, "my-web.kubernetes.json"), "utf8")).items as { kind: string }[];

    test("the manifests fit the published schemas, which find faults", async () => {
      for (const more of [
        ["-p", "8080:80"],
        ["--no-kvm", "--count", "5"],
      ]) {
        const found = items(await exported("kubernetes", ...more));
        assert.deepEqual(
          found.map(({ kind }) => kind),
          ["Service", "StatefulSet"],
        );
        for (const item of found) assert.deepEqual(schemaErrors(item as never, KINDS[item.kind]!, $defs), []);
      }
      const set = items(await exported("kubernetes"))[1] as never as { spec: Record<string, unknown> };
      const broken = { ...set, spec: { ...set.spec, replicas: "2", selector: undefined, replica: 2 } };
      assert.deepEqual(schemaErrors(JSON.parse(JSON.stringify(broken)), KINDS["StatefulSet"]!, $defs), [
        ".spec.selector: missing",
        ".spec.replicas: not of type integer,null",
        ".spec.replica: not in the schema",
      ]);
    });

    test("a pod is privileged for /dev/kvm only", async () => {
      const podOf = async (...more: string[]) => {
        const [, set] = items(
          await exported("kubernetes", "--image", "registry.example:5000/mvmctl@sha256:0a", ...more),
        );
        return (set as never as { spec: { template: { spec: never } } }).spec.template.spec as {
          containers: [{ securityContext?: unknown; command: string[]; image: string }];
          volumes: { name: string }[];
        };
      };
      const pod = await podOf();
      assert.deepEqual(pod.containers[0].securityContext, { privileged: true });
      assert.equal(pod.containers[0].image, "registry.example:5000/mvmctl@sha256:0a");
      assert.deepEqual(pod.containers[0].command.slice(1), [
        "run",
        "--template",
        "my-web",
        "--name",
        "$(POD_NAME)",
        "--foreground",
      ]);
      const without = await podOf("--no-kvm");
      assert.equal(without.containers[0].securityContext, undefined);
      assert.deepEqual(
        without.volumes.map(({ name }) => name),
        ["data"],
      );
    });
  });

  test("with --isolate every engine runs isolated guests", async () => {
    for (const [engine, file] of [
      ["systemd", "my-web@.service"],
      ["nomad", "my-web.nomad.hcl"],
      ["kubernetes", "my-web.kubernetes.json"],
    ] as const) {
      const isolated = readFileSync(join(await exported(engine, "--isolate"), file), "utf8");
      const plain = readFileSync(join(await exported(engine), file), "utf8");
      assert.match(isolated, /--foreground[",\s]+--isolate\b/, engine);
      assert.doesNotMatch(plain, /--isolate/, engine);
    }
  });

  test("files that were changed by hand are kept, unless --force says otherwise", async () => {
    const directory = await exported("nomad");
    const args = ["export", "nomad", "--template", "my-web", "-o", directory, "--program", program];
    await mvm.ok(args);
    const file = join(directory, "my-web.nomad.hcl");
    writeFileSync(file, "mine");
    assert.match(await mvm.fails(args, "FILES_EXIST"), /my-web\.nomad\.hcl would change.*--force/s);
    assert.equal(readFileSync(file, "utf8"), "mine");
    await mvm.ok([...args, "--force"]);
    assert.match(readFileSync(file, "utf8"), /^job "my-web"/);
    const plain = join(mvm.dataDir, "plain");
    writeFileSync(plain, "");
    mkdirSync(join(mvm.dataDir, "below"));
    await mvm.fails(["export", "nomad", "--template", "w", "-o", join(plain, "x")], "FILE_FAILED");
  });

  test("what would mean something in an engine's language, or name too many, is refused", async () => {
    for (const [args, code] of [
      [["docker", "--template", "w"], "USAGE"],
      [["systemd", "--template", "W!"], "INVALID_NAME"],
      [["systemd", "--template", "w", "--count", "0"], "INVALID_SETTINGS"],
      [["systemd", "--template", "w", "--count", "many"], "USAGE"],
      [["systemd", "--template", "w".repeat(62), "--count", "10"], "INVALID_NAME"],
      [["systemd", "--template", "w", "--program", "/bin/x%i"], "INVALID_SETTINGS"],
      [["nomad", "--template", "w", "--data-dir", '/x"y'], "INVALID_SETTINGS"],
      [["kubernetes", "--template", "w", "--image", "a b"], "INVALID_SETTINGS"],
      [["systemd", "--template", "w", "--count", "9", "-p", "65530:1"], "INVALID_SETTINGS"],
      [["systemd", "--template", "w", "-p", "80"], "INVALID_SETTINGS"],
      [["kubernetes", "--template", "w", "--isolate", "--no-kvm"], "INVALID_SETTINGS"],
    ] as const)
      await mvm.fails(["export", ...args, "-o", join(mvm.dataDir, "refused")], code);
    assert.ok(!readdirSync(mvm.dataDir).includes("refused"));
  });
});
