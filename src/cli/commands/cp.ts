import { resolve } from "node:path";
import { type InstanceName, parseInstanceName } from "../../core/names.ts";
import { copyInto, copyOut } from "../../instance/copy.ts";
import { UsageError } from "../errors.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Copy files into or out of an instance",
  description: `One of the two is NAME:/path. Directories are copied whole. A target that ends in / is copied into, and so is a
directory of this machine; a directory of the guest without / is added to if a directory is copied.`,
  define: (command) => command.argument("<from>").argument("<to>"),
  examples: ["mvmctl cp ./app svc:/srv/app", "mvmctl cp svc:/var/log/web.log ."],
  json: false,
  async run(cli, [from = "", to = ""]) {
    const source = parseRemote(from);
    const target = parseRemote(to);
    if ((source === undefined) === (target === undefined)) {
      throw new UsageError(
        "exactly one of the two has to be in an instance",
        "write NAME:/path for the one in the instance",
      );
    }
    cli.report({ kind: "step", text: `Copying ${from} to ${to}` });
    if (target) await copyInto(cli, target.name, resolve(cli.cwd, from), target.path);
    if (source) await copyOut(cli, source.name, source.path, resolve(cli.cwd, to));
  },
};

/** `NAME:/path`; a host path with a colon can be written `./with:colon`. */
function parseRemote(text: string): { name: InstanceName; path: string } | undefined {
  const match = /^([^/:]+):(.*)$/s.exec(text);
  return match ? { name: parseInstanceName(match[1]!), path: match[2]! } : undefined;
}
