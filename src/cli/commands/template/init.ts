import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseTemplateName } from "../../../core/names.ts";
import { initTemplate } from "../../../template/init.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Page, textOption } from "../../page.ts";

export const page: Page = {
  summary: "Write a new template's files",
  description:
    "Writes flake.nix, .gitignore and README.md into the current directory if it is empty, else into a new directory NAME. Files that are there are never overwritten.",
  define: (command) =>
    command
      .argument("<name>")
      .option("--local", "write the files on this machine (has to be said)")
      .option("--preset <preset>", "minimal, http, python, redis, postgres or worker (default http)")
      .option("--pkgs <set>", "nixpkgs, or host: Debian's packages, for machines without a Nix cache (default nixpkgs)")
      .option("--dir <directory>", "write into this directory"),
  examples: ["mvmctl template init my-service --local", "mvmctl template init api --local --preset python --pkgs host"],
  json: true,
  async run(cli, [text = ""], options) {
    const name = parseTemplateName(text);
    const pkgs = textOption(options, "pkgs") ?? "nixpkgs";
    if (pkgs !== "nixpkgs" && pkgs !== "host")
      throw new UsageError(`--pkgs '${pkgs}' is not known`, "choose nixpkgs or host");
    if (!flag(options, "local"))
      throw new UsageError(
        "where the template is to be made was not said",
        `add --local to write its files here: mvmctl template init ${name} --local`,
      );
    const directory = chooseDirectory(cli.cwd, name, textOption(options, "dir"));
    const made = initTemplate({ name, preset: textOption(options, "preset") ?? "http", pkgs, directory });
    const place = relative(cli.cwd, directory);
    cli.print({ directory, ...made }, () => {
      const files = made.files.map((file) => `  ${join(place, file)}\n`).join("");
      const enter = place === "" ? "" : `cd ${place}\n`;
      return `Wrote the template ${name}:\n${files}\nNext:\n${enter}mvmctl template build ${name} --snapshot\nmvmctl run --template ${name}\n`;
    });
  },
};

/** The current directory if it is empty but for hidden files (a fresh `git init`), else one of the template's name. */
function chooseDirectory(cwd: string, name: string, wish: string | undefined): string {
  if (wish !== undefined) return resolve(cwd, wish);
  const empty = existsSync(cwd) && readdirSync(cwd).every((entry) => entry.startsWith("."));
  return empty ? cwd : join(cwd, name);
}
