"""Programs that write through a mount until it is killed, and print what they were told is safe.

Each takes the directory that it writes to and the seed of all that is random about it.
"""

# A pack, then the index that names it; each under a temporary name until it is whole.
STAGED = """
import os, random, sys
top, generator = sys.argv[1], random.Random(int(sys.argv[2]))
def put(name, data):
    path = os.path.join(top, name)
    file = os.open(path + "-tmp-1", os.O_CREAT | os.O_WRONLY | os.O_EXCL)
    for start in range(0, len(data), 131072):
        os.write(file, data[start : start + 131072])
    if generator.random() < 0.5:
        os.fsync(file)
    os.close(file)
    os.rename(path + "-tmp-1", path)
    print(name, flush=True)
for number in range(10**9):
    put(f"pack-{number}", generator.randbytes(generator.choice([100, 70000, 9000000, 20000000])))
    put(f"index-{number}", f"pack-{number}".encode())
"""

# One file after another, each grown by appending; a line tells how much of it is synchronized.
APPENDING = """
import os, random, sys
top, generator = sys.argv[1], random.Random(int(sys.argv[2]))
for number in range(10**9):
    name, length = f"log-{number}", 0
    for _ in range(generator.randrange(1, 4)):
        file = os.open(os.path.join(top, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for _ in range(generator.randrange(1, 12)):
            data = generator.randbytes(generator.choice([10, 5000, 400000, 3000000]))
            done = 0
            while done < len(data):
                done += os.write(file, data[done:])
            length += len(data)
            if generator.random() < 0.4:
                os.fsync(file)
                print("synced", name, length, flush=True)
        os.close(file)
        print("closed", name, length, flush=True)
"""

# Files of many parts, one after the other; each is opened again and changed in a few places.
LARGE = """
import os, random, sys
top, generator = sys.argv[1], random.Random(int(sys.argv[2]))
for number in range(10**9):
    path = os.path.join(top, f"large-{number}")
    with open(path, "wb", buffering=0) as file:
        data = memoryview(generator.randbytes(generator.choice([40_000_000, 75_000_000])))
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
    print(number, flush=True)
    for _ in range(generator.randrange(3)):
        with open(path, "r+b", buffering=0) as file:
            for _ in range(2):
                file.seek(generator.randrange(len(data) - 300_000))
                file.write(generator.randbytes(300_000))
        print(number, flush=True)
"""
