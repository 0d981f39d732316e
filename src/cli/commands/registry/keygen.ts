import { resolve } from "node:path";
import { configPath } from "../../../core/config.ts";
import { generateKey } from "../../../registry/signatures.ts";
import type { Page } from "../../page.ts";

export const page: Page = {
  summary: "Make a key pair for signing what is pushed",
  description: "Writes the private key to the file, for its owner only, and prints the public key.",
  define: (command) => command.argument("<file>"),
  examples: ["mvmctl registry keygen ~/.mvm/release.pem"],
  json: true,
  async run(cli, [file = ""]) {
    const path = resolve(cli.cwd, file);
    const publicKey = generateKey(path);
    cli.print({ publicKey, privateKeyFile: path }, () =>
      [
        `${publicKey}`,
        "",
        `Sign with it:  mvmctl template push NAME --sign --key ${path}`,
        `Trust it:      on machines that pull, in ${configPath(cli.paths)}:`,
        `               { "version": 1, "registry": { "trustedKeys": ["${publicKey}"] } }`,
        "",
      ].join("\n"),
    );
  },
};
