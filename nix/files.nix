# The `files` of an image as calls of install_file (image/assemble.sh): one line of sh each.
{ name, files, writeText }:
let
  text = import ./text.nix;
  fail = message: throw "mkGuest ${name}: ${message}";
  kinds = [ "source" "text" "link" ];

  normalise = path: given:
    if builtins.isString given then { text = given; }
    else if builtins.isPath given || given ? outPath then { source = given; }
    else if builtins.isAttrs given && builtins.length (builtins.filter (kind: given ? ${kind}) kinds) == 1 then given
    else fail "files.\"${path}\" must be a path, a text, or a set with one of ${text.list kinds}";

  checkPath = path:
    if builtins.match "/[^\n]*[^/\n]" path != null && builtins.match "(.*/)?\\.\\.?(/.*)?" path == null then path
    else fail "files.\"${path}\" must be an absolute path without '.' and '..'";

  checkMode = path: mode:
    if builtins.match "0?[0-7]{3}" mode != null then mode
    else fail "files.\"${path}\".mode must be an octal text such as \"0755\"";

  call = path: given:
    let file = normalise path given;
    in
    if file ? link then "link_file ${text.shellQuote (checkPath path)} ${text.shellQuote file.link}"
    else
      let
        source = if file ? text then writeText "guest-file" file.text else "${file.source}";
        mode = if file ? mode then checkMode path file.mode else "";
      in
      "install_file ${text.shellQuote (checkPath path)} ${text.shellQuote source} ${text.shellQuote mode}";
in
text.lines (map (path: call path files.${path}) (builtins.attrNames files))
