# Helpers for strings. nixpkgs' lib is not at hand here: hostPkgs works without nixpkgs.
{
  # "a, b, c"
  list = builtins.concatStringsSep ", ";

  # A word for sh that stands for exactly this text.
  shellQuote = value: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";

  lines = items: builtins.concatStringsSep "" (map (item: "${item}\n") items);
}
