{
  description = "A web page, served by busybox";

  # mvmctl puts its own guest library here when it builds.
  inputs.mvm.url = "path:../../nix";

  outputs = { self, mvm }: {
    packages.x86_64-linux.default = mvm.lib.mkGuest {
      pkgs = mvm.hostPkgs.x86_64-linux;
      debianLock = ./debian.lock;
      name = "hello";

      files."/srv/www/index.html" = ./index.html;

      services.web.command = [ "httpd" "-f" "-p" "8080" "-h" "/srv/www" ];

      healthChecks.page = {
        healthHttp = "http://127.0.0.1:8080/";
        healthIntervalSecs = 2;
        healthTimeoutSecs = 5;
      };
    };
  };
}
