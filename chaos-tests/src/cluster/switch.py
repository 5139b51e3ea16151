# The switch of switch.rs: TAP devices by name, the harness's first. Commands on standard input:
#   weather DELAY_MS JITTER_MS LOST DOUBLED DAMAGED    (the last three in a thousand frames); answers `ok`
#   suffered                                           answers how many frames the present weather has changed
# Answers `ready` once the devices are there, and ends with its standard input.
import fcntl, heapq, os, random, select, struct, sys, time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
IPV4 = b"\x08\x00"
# Behind the headers of Ethernet and IPv4: what is damaged there is found by the checksum of TCP.
PAYLOAD = 34
GOOD = (0.0, 0.0, 0, 0, 0)


def tap(name):
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return port


ports = [tap(name) for name in sys.argv[2:]]
chance = random.Random(int(sys.argv[1]))
weather, suffered, known, due, number, said = GOOD, 0, {}, [], 0, b""
os.set_blocking(0, False)
print("ready", flush=True)


def send(to, frame):
    for port in to:
        try:
            os.write(port, frame)
        except OSError:
            pass  # A card whose other end is gone or full loses frames, as any cable does.


def forward(source, frame):
    global suffered, number
    known[frame[6:12]] = source
    to = [known[frame[:6]]] if frame[:6] in known else ports
    to = [port for port in to if port != source]
    # The harness is on the first port: what goes to it or comes from it never suffers, nor does what finds addresses.
    spared = source == ports[0] or ports[0] in to or frame[12:14] != IPV4
    if spared or weather == GOOD:
        return send(to, frame)
    delay, jitter, lost, doubled, damaged = weather
    if chance.randrange(1000) < lost:
        suffered += 1
        return None
    if chance.randrange(1000) < damaged and len(frame) > PAYLOAD:
        changed = bytearray(frame)
        changed[chance.randrange(PAYLOAD, len(frame))] ^= 1 << chance.randrange(8)
        frame, suffered = bytes(changed), suffered + 1
    copies = 1 + (chance.randrange(1000) < doubled)
    if copies > 1 or delay or jitter:
        suffered += 1
    for _ in range(copies):
        after = time.monotonic() + (delay + jitter * chance.random()) / 1000
        number += 1
        heapq.heappush(due, (after, number, to, frame))


def obey(line):
    global weather, suffered
    words = line.split()
    if words[0] == "weather":
        weather = (float(words[1]), float(words[2]), *map(int, words[3:6]))
        suffered = 0
        print("ok", flush=True)
    else:
        print(suffered, flush=True)


while True:
    wait = max(0.0, due[0][0] - time.monotonic()) if due else None
    readable, _, _ = select.select([0, *ports], [], [], wait)
    if 0 in readable:
        said += os.read(0, 4096) or sys.exit()
        while b"\n" in said:
            line, said = said.split(b"\n", 1)
            obey(line.decode())
    for port in readable:
        if port:
            try:
                forward(port, os.read(port, 2048))
            except OSError:
                pass
    while due and due[0][0] <= time.monotonic():
        _, _, to, frame = heapq.heappop(due)
        send(to, frame)
