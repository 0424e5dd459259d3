print("kvmlite")
