# A command line that is wrong ends the driver domain with a line that says why.
need image
xl create "$stubdom/xl/driver-domain.cfg" "extra='loglevel=loud disk.b=xvdb,rw'" "disk=[]" "on_crash='destroy'"
wait_until 20 "it ends" gone driver-domain
printed driver-domain 'disk.b=xvdb,rw' || fail "it does not say what is wrong"
