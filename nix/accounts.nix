# The image's users and groups: a few well-known ones, `app`, and the image's own.
{ name, users, serviceGroup }:
let
  text = import ./text.nix;
  fail = message: throw "mkGuest ${name}: ${message}";

  # The numbers are those of Debian's base-passwd, so that packages' files and tools agree with them.
  systemUsers = {
    root = { uid = 0; home = "/root"; shell = "/bin/sh"; };
    daemon = { uid = 1; };
    www-data = { uid = 33; home = "/var/www"; };
    nobody = { uid = 65534; group = "nogroup"; };
  };
  systemGroups = {
    root = 0;
    daemon = 1;
    adm = 4;
    tty = 5; # devpts is mounted with this group
    disk = 6;
    www-data = 33;
    utmp = 43;
    staff = 50;
    nogroup = 65534;
  };
  serviceGid = 990;

  knownFields = [ "uid" "group" "home" "shell" ];
  checkUser = user: settings:
    let unknown = builtins.filter (field: !(builtins.elem field knownFields)) (builtins.attrNames settings);
    in
    if builtins.match "[a-z_][a-z0-9_-]{0,31}" user == null then fail "'${user}' can't be the name of a user"
    else if systemUsers ? ${user} then fail "users.${user} is there already"
    else if unknown != [ ] then fail "users.${user} has unknown settings: ${text.list unknown} (known: ${text.list knownFields})"
    else if !(settings ? uid) then fail "users.${user} needs a uid that never changes, for example users.${user}.uid = 200"
    else settings;

  ownUsers = { app = { uid = 1000; home = "/home/app"; shell = "/bin/sh"; }; } // builtins.mapAttrs checkUser users;
  allUsers = systemUsers // ownUsers;

  # Every own user has a group of the same name and number, unless another was chosen.
  ownGroups = builtins.mapAttrs (_: settings: settings.uid) (withoutGroup ownUsers);
  withoutGroup = set: builtins.removeAttrs set (builtins.filter (user: set.${user} ? group) (builtins.attrNames set));
  groups = { ${serviceGroup} = serviceGid; } // ownGroups // systemGroups;
  gidOf = user:
    let group = allUsers.${user}.group or user;
    in groups.${group} or (fail "users.${user}.group '${group}' is no group of this image");

  sortBy = number: names: builtins.sort (a: b: number a < number b) names;
  userNames = sortBy (user: allUsers.${user}.uid) (builtins.attrNames allUsers);
  groupNames = sortBy (group: groups.${group}) (builtins.attrNames groups);
  uids = map (user: allUsers.${user}.uid) userNames;
  repeated = builtins.filter (uid: builtins.length (builtins.filter (other: other == uid) uids) > 1) uids;

  homeOf = user: allUsers.${user}.home or "/nonexistent";
  shellOf = user: allUsers.${user}.shell or "/usr/sbin/nologin";
  passwdLine = user: "${user}:x:${toString allUsers.${user}.uid}:${toString (gidOf user)}::${homeOf user}:${shellOf user}";
  membersOf = group: if group == serviceGroup then builtins.attrNames ownUsers else [ ];
  groupLine = group: "${group}:x:${toString groups.${group}}:${builtins.concatStringsSep "," (membersOf group)}";
in
if repeated != [ ] then fail "the uid ${toString (builtins.head repeated)} is given to two users"
else if systemGroups ? ${serviceGroup} then fail "serviceGroup '${serviceGroup}' is a group of the system"
else {
  passwd = text.lines (map passwdLine userNames);
  group = text.lines (map groupLine groupNames);
  # No account has a password: '*' matches none.
  shadow = text.lines (map (user: "${user}:*:1::::::") userNames);
  names = userNames;
  # The homes of the image's own users, by name.
  homes = builtins.mapAttrs (user: _: homeOf user) (builtins.removeAttrs ownUsers
    (builtins.filter (user: !(ownUsers.${user} ? home)) (builtins.attrNames ownUsers)));
}
