{
  description = "A web service in Python, from Debian's python3";

  # mvmctl puts its own guest library here when it builds.
  inputs.mvm.url = "path:../../nix";

  outputs = { self, mvm }: {
    packages.x86_64-linux.default = mvm.lib.mkGuest {
      pkgs = mvm.hostPkgs.x86_64-linux;
      debianLock = ./debian.lock;
      name = "python-web";
      packages = [ "python3" ];

      files."/srv/app/server.py" = ./server.py;

      services.web = {
        command = [ "python3" "/srv/app/server.py" ];
        env.PORT = "8000";
      };

      healthChecks.health = {
        healthHttp = "http://127.0.0.1:8000/health";
        healthIntervalSecs = 2;
        healthTimeoutSecs = 5;
      };
    };
  };
}
