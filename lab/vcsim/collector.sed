# What is changed in govmomi's simulator/property_collector.go when vcsim is built (setup_vcsim in scripts/lib/setup.sh).
# As it is, WaitForUpdatesEx reads every object of the filter again for each single change, through XML: with ten thousand
# VMs several seconds a time. Once for all changes of a round finds the same.
s/^\tapply := func() bool {$/\tapplied := false\n&\n\t\tif applied {\n\t\t\treturn true\n\t\t}\n\t\tapplied = true/
s/^\t\tcase <-ticker\.C:$/&\n\t\t\tapplied = false/
# And it answers nobody for 20 ms, its own model least of all, which waits for two tasks of each host and one of each VM.
s/time\.NewTicker(20 \* time\.Millisecond)/time.NewTicker(time.Millisecond)/
