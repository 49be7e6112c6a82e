#!/usr/bin/env bash
# A Kafka broker on loopback, for users without Docker.
#
#   deploy/kafka/broker.sh jars     fetch the jars (43 MB, once) and print their folder
#   deploy/kafka/broker.sh start    start a broker on 127.0.0.1:9092
#   deploy/kafka/broker.sh stop     stop it; its data stays in .kafka/data
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${WIRESONDE_KAFKA_DIR:-$here/../../.kafka}
mkdir -p "$root"
root=$(cd "$root" && pwd)
jars=$root/jars pid=$root/broker.pid log=$root/broker.log

need() {
  command -v "$1" > /dev/null || { echo "$1 is not here: install a Java runtime (17 or newer) and Maven" >&2; exit 1; }
}

fetch() ( # one at a time
  flock 9
  if ! cmp -s "$here/pom.xml" "$jars/pom.xml"; then
    need mvn
    echo "fetching Kafka's jars into $jars (43 MB, once)" >&2
    rm -rf "$jars"
    mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$jars" -DincludeScope=runtime >&2
    cp "$here/pom.xml" "$jars/pom.xml" # the list that the jars came from
  fi
) 9> "$root/lock"

running() { [ -s "$pid" ] && kill -0 "$(cat "$pid")" 2> /dev/null; }

start() {
  need java
  if running; then
    echo "a broker runs already, pid $(cat "$pid"); stop it with: $0 stop" >&2
    exit 1
  fi
  fetch
  { cat "$here/server.properties"; echo "log.dirs=$root/data"; } > "$root/server.properties"
  if [ ! -e "$root/data/meta.properties" ]; then
    id=$(java -cp "$jars/*" kafka.tools.StorageTool random-uuid 2> /dev/null | tail -1)
    java -cp "$jars/*" kafka.tools.StorageTool format -t "$id" -c "$root/server.properties" > "$log" 2>&1 \
      || { cat "$log" >&2; exit 1; }
  fi
  nohup java -Xms128m -Xmx512m -cp "$jars/*" kafka.Kafka "$root/server.properties" >> "$log" 2>&1 < /dev/null &
  echo $! > "$pid"
  for _ in $(seq 120); do
    if ! running; then
      tail -5 "$log" >&2
      echo "the broker ended at once; its log is $log" >&2
      exit 1
    fi
    if (exec 3<> /dev/tcp/127.0.0.1/9092) 2> /dev/null; then
      echo "a broker listens on 127.0.0.1:9092 (pid $(cat "$pid"), log $log)"
      echo "use it with --bus kafka://127.0.0.1:9092; stop it with: deploy/kafka/broker.sh stop"
      return
    fi
    sleep 0.5
  done
  echo "no broker after a minute; its log is $log" >&2
  exit 1
}

stop() {
  if ! running; then
    echo "no broker runs" >&2
    return
  fi
  kill "$(cat "$pid")"
  for _ in $(seq 60); do running || break; sleep 0.5; done
  running && kill -9 "$(cat "$pid")"
  rm -f "$pid"
  echo "stopped; its data stays in $root/data"
}

case "${1:-}" in
  jars) fetch; echo "$jars" ;;
  start | stop) "$1" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
