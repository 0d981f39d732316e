# /etc/mvm/guest.json as the agent reads it (docs/agent-api.md), from what a flake says.
{ name, hostname, serviceGroup, accounts, services, healthChecks, hooks }:
let
  text = import ./text.nix;
  fail = message: throw "mkGuest ${name}: ${message}";

  checkFields = where: known: settings:
    let unknown = builtins.filter (field: !(builtins.elem field known)) (builtins.attrNames settings);
    in
    if !(builtins.isAttrs settings) then fail "${where} must be a set of settings"
    else if unknown != [ ] then fail "${where} has unknown settings: ${text.list unknown} (known: ${text.list known})"
    else settings;
  checkName = where: key:
    if builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,62}" key != null then key
    else fail "'${key}' can't be the name of a ${where}";
  isText = value: builtins.isString value && value != "";
  checkText = where: value: if isText value then value else fail "${where} must be a text for the shell";
  checkCommand = where: value:
    if isText value || (builtins.isList value && value != [ ] && builtins.all builtins.isString value) then value
    else fail "${where} must be a text for the shell or a list of words";
  checkUser = where: user:
    if builtins.elem user accounts.names then user
    else fail "${where} is '${user}', who is no user of the image: add users.${user} = { uid = …; }";
  checkSecs = where: value:
    if builtins.isInt value && value > 0 then value else fail "${where} must be a whole number of seconds above 0";

  service = key: given:
    let
      where = "services.${checkName "service" key}";
      settings = checkFields where
        [ "command" "preStart" "env" "user" "logFile" "directories" "restartOnWake" "stopTimeoutSecs" ]
        given;
      user = checkUser "${where}.user" (settings.user or "app");
      preStart = settings.preStart or null;
    in
    {
      command = checkCommand "${where}.command" (settings.command or (fail "${where} needs a command"));
      preStart = if preStart == null then null else checkText "${where}.preStart" preStart;
      env = builtins.mapAttrs (_: toString) (settings.env or { });
      inherit user;
      logFile = settings.logFile or null;
      # A home is of use only if its user may write to it, and everything in the root image belongs to root.
      directories = (settings.directories or [ ]) ++ (if accounts.homes ? ${user} then [ accounts.homes.${user} ] else [ ]);
      restartOnWake = settings.restartOnWake or false;
      stopTimeoutSecs = checkSecs "${where}.stopTimeoutSecs" (settings.stopTimeoutSecs or 10);
    };

  probes = {
    healthCmd = checkText;
    healthHttp = where: value:
      if isText value && builtins.match "http://[^ /]+(/[^ ]*)?" value != null then value
      else fail "${where} must be like http://127.0.0.1:8080/health";
    healthTcp = where: value:
      if isText value && builtins.match "[^ ]+:[0-9]+" value != null then value
      else fail "${where} must be like 127.0.0.1:5432";
  };

  # What is said over a TCP connection, and what has to be heard.
  exchange = where: settings:
    let
      given = builtins.intersectAttrs { healthSend = null; healthExpect = null; } settings;
      wrong = builtins.filter (field: !(isText given.${field})) (builtins.attrNames given);
    in
    if given != { } && !(settings ? healthTcp) then fail "${where}: healthSend and healthExpect are for healthTcp"
    else if wrong != [ ] then fail "${where}.${builtins.head wrong} must be a text"
    else if given ? healthSend && !(given ? healthExpect) then
      fail "${where}: healthSend needs healthExpect, which a healthy answer contains"
    else given;

  healthCheck = key: given:
    let
      where = "healthChecks.${checkName "health check" key}";
      settings = checkFields where
        (builtins.attrNames probes ++ [ "healthSend" "healthExpect" "healthIntervalSecs" "healthTimeoutSecs" "user" ])
        given;
      chosen = builtins.filter (probe: settings ? ${probe}) (builtins.attrNames probes);
      probe =
        if builtins.length chosen == 1 then builtins.head chosen
        else fail "${where} needs exactly one of ${text.list (builtins.attrNames probes)}";
    in
    exchange where settings // {
      ${probe} = probes.${probe} "${where}.${probe}" settings.${probe};
      healthIntervalSecs = checkSecs "${where}.healthIntervalSecs" (settings.healthIntervalSecs or 5);
      healthTimeoutSecs = checkSecs "${where}.healthTimeoutSecs" (settings.healthTimeoutSecs or 10);
      user = checkUser "${where}.user" (settings.user or "app");
    };

  checkedHostname =
    if builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,62}" hostname != null then hostname
    else fail "'${hostname}' can't be a host name";

  checkedHooks = checkFields "hooks" [ "preSnapshot" "postRestore" ] hooks;
  hookList = key: map (checkText "hooks.${key}") (checkedHooks.${key} or [ ]);
in
builtins.toJSON {
  version = 1;
  hostname = checkedHostname;
  inherit serviceGroup;
  services = builtins.mapAttrs service services;
  healthChecks = builtins.mapAttrs healthCheck healthChecks;
  hooks = { preSnapshot = hookList "preSnapshot"; postRestore = hookList "postRestore"; };
}
