import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { COMMANDS } from "../../src/cli/commands.ts";
import { commandOf } from "../../src/cli/main.ts";
import { run } from "../../src/core/process.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";

describe("what the command line says about itself", () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());

  test("the overview names every command, and so does the group's", async () => {
    const overview = await mvm.ok(["--help"]);
    const group = await mvm.ok(["template", "--help"]);
    for (const { path, summary } of COMMANDS) {
      assert.match(overview, line(path, summary));
      if (path.startsWith("template ")) assert.match(group, line(path, summary));
    }
    assert.equal(await mvm.ok([]), overview);
    assert.equal(await mvm.ok(["help"]), overview);
  });

  test("every command has help that fits a terminal, with examples of itself", async () => {
    for (const { path, summary, load } of COMMANDS) {
      const { page } = await load();
      assert.equal(page.summary, summary, `${path} has one summary in the table and on its page`);
      const help = commandOf(path, page).configureHelp({ helpWidth: 80 }).helpInformation();
      assert.ok(help.startsWith(`Usage: mvmctl ${path} `) && help.includes(summary), help);
      for (const text of help.split("\n")) assert.ok(text.length <= 80, `${path}: '${text}' is too wide`);
      assert.ok(page.examples.length > 0 && page.examples.every((example) => example.includes(`mvmctl ${path}`)));
    }
  });

  test("`help COMMAND` is `COMMAND --help`, with the examples", async () => {
    const help = await mvm.ok(["template", "build", "--help"]);
    assert.match(help, /^Usage: mvmctl template build .*Examples:\n {2}mvmctl template build /s);
    assert.equal(await mvm.ok(["help", "template", "build"]), help);
  });

  test("a group without a command shows its commands, as wrong usage", async () => {
    const result = await mvm.run(["template"]);
    assert.equal(result.exitCode, 2);
    assert.equal(result.stdout, "");
    assert.match(result.stderr, /template build/);
  });

  test("what is unknown is answered with what was probably meant, and exit code 2", async () => {
    for (const [args, said] of [
      [["tempalte", "buidl"], /unknown command 'tempalte'\nhint: did you mean `mvmctl template build`\?/],
      [["template", "bild", "x"], /unknown command 'template bild'\nhint: did you mean `mvmctl template build`\?/],
      [["stpo"], /unknown command 'stpo'\nhint: did you mean `mvmctl stop`\?/],
      [["frobnicate"], /unknown command 'frobnicate'\nhint: `mvmctl --help` lists the commands/],
      [["run", "--templat", "x"], /unknown option '--templat'\nhint: did you mean --template\?/],
      [["--frob"], /unknown option '--frob'/],
      [["ls", "extra"], /too many arguments/],
      [["exec", "svc"], /missing required argument 'command'/],
      [["exec", "svc", "-it"], /missing required argument 'command'/],
      [["exec", "svc", "-x", "--", "sh"], /unknown option '-x'/],
      [["template", "create-multi", "shop"], /'--roles <a,b,…>' not specified/],
      [["run"], /give either a template.s name or --flake REF/],
      [["stop"], /give names, or --all/],
      [["completions", "tcsh"], /choose bash, zsh or fish/],
    ] as const) {
      const result = await mvm.run(args);
      assert.equal(result.exitCode, 2, `mvmctl ${args.join(" ")}`);
      assert.equal(result.stdout, "");
      assert.match(result.stderr, said);
    }
  });

  test("--json makes wrong usage machine-readable too, and what follows -- is not ours", async () => {
    assert.match(await mvm.fails(["run", "--frob"], "USAGE"), /unknown option '--frob'/);
    const guests = await mvm.run(["exec", "svc", "--", "program", "--json", "--debug"]);
    assert.match(guests.stderr, /^error: there is no instance 'svc'\nhint: [^\n]+\n$/);
  });

  test("--debug shows where an error comes from, and nothing else does", async () => {
    assert.match((await mvm.run(["inspect", "svc", "--debug"])).stderr, /\n {4}at /);
    assert.doesNotMatch((await mvm.run(["inspect", "svc"])).stderr, /\n {4}at /);
  });

  test("--version prints the version alone", async () => {
    for (const option of ["--version", "-V"]) assert.match(await mvm.ok([option]), /^\d+\.\d+\.\d+\n$/);
  });

  test("bash completes commands", async () => {
    const script = await mvm.ok(["completions", "bash"]);
    const complete = async (...words: string[]) => {
      const typed = words.map((word) => `'${word}'`).join(" ");
      const ask = `COMP_WORDS=(${typed}); COMP_CWORD=${words.length - 1}; _mvmctl; echo "\${COMPREPLY[*]}"`;
      return (await run("bash", ["--norc", "-c", `${script}\n${ask}`])).stdout.trim();
    };
    assert.equal(await complete("mvmctl", "temp"), "template");
    assert.equal(await complete("mvmctl", "template", "cr"), "create create-multi");
  });
});

function line(path: string, summary: string): RegExp {
  return new RegExp(`^  ${path} +${summary}$`, "m");
}
